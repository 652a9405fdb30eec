# SPDX-License-Identifier: Apache-2.0
"""Command lines and environments of the parts of the stack."""

import json
import os
import sys
from pathlib import Path

import pytest

from common.checkpoint import Checkpoint
from scripts.launcher.environment import (
    TritonServer,
    find_triton,
    frontend_command,
    has_gpu,
    stack_environment,
    triton_command,
    triton_environment,
)
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import ServedModel
from scripts.launcher.options import LaunchOptions
from scripts.launcher.ports import Ports
from scripts.setup.interpreter import libpython_dir
from triton_chat import ROOT

PORTS = Ports(frontend=1, http=2, grpc=3, metrics=4)
MODEL = ServedModel(Checkpoint(Path("/models/tiny"), "llama", ("LlamaForCausalLM",), 100, 2048, (2,), 0), "tiny", 1)
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin"}
EMBEDDED = TritonServer(Path("/cache/bin/tritonserver"), home=Path("/cache"))


def test_the_contract_with_the_model_repository() -> None:
    environment = stack_environment(NO_GPU, LaunchOptions(styler="qwen3"), MODEL, PORTS)
    assert environment["TRITON_CHAT_MODEL"] == "/models/tiny"
    assert environment["TRITON_CHAT_MAX_MODEL_LEN"] == "2048"
    assert environment["TRITON_CHAT_MODALITIES"] == "text"
    assert environment["TRITON_CHAT_STYLER"] == "qwen3"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["PATH"] == os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin"])


def test_the_parts_import_ours_first_and_the_users_modules_after_them() -> None:
    environment = triton_environment(
        stack_environment(NO_GPU | {"PYTHONPATH": "/custom"}, LaunchOptions(), MODEL, PORTS), LaunchOptions(), EMBEDDED
    )
    assert environment["PYTHONPATH"] == f"{ROOT}:/custom"
    assert environment["PYTHONSAFEPATH"] == "1"
    assert frontend_command() == [sys.executable, "-P", "-m", "frontend"]


def test_the_plan_of_the_vision_tower_is_found_from_another_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    environment = triton_environment(
        NO_GPU | {"TRITON_CHAT_VIT_ENGINE": "vision/model.plan"}, LaunchOptions(), EMBEDDED
    )
    assert environment["TRITON_CHAT_VIT_ENGINE"] == f"{tmp_path}/vision/model.plan"


def test_a_chat_template_is_found_from_another_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, expected in (("own.jinja", f"{tmp_path}/own.jinja"), ("{{ x }}/y", "{{ x }}/y"), ("a\nb", "a\nb")):
        environment = triton_environment(NO_GPU | {"TRITON_CHAT_CHAT_TEMPLATE": given}, LaunchOptions(), EMBEDDED)
        assert environment["TRITON_CHAT_CHAT_TEMPLATE"] == expected


def test_the_frontend_gets_its_settings() -> None:
    options = LaunchOptions(host="0.0.0.0", triton_host="0.0.0.0", served_model_name=("a", "b"), max_model_len=512)
    environment = stack_environment(NO_GPU, options, MODEL, PORTS)
    assert environment["TRITON_CHAT_HOST"] == "0.0.0.0"
    assert environment["TRITON_CHAT_PORT"] == "1"
    assert environment["TRITON_CHAT_TRITON_URL"] == "127.0.0.1:3"
    assert environment["TRITON_CHAT_TRITON_METRICS_URL"] == f"http://127.0.0.1:{PORTS.metrics}/metrics"
    assert environment["TRITON_CHAT_SERVED_MODEL_NAME"] == "a,b"
    assert environment["TRITON_CHAT_MAX_MODEL_LEN"] == "512"


def test_no_more_requests_are_admitted_than_the_engine_has_slots() -> None:
    def limit(environment: dict[str, str], **options: object) -> str | None:
        return stack_environment(environment, LaunchOptions(**options), MODEL, PORTS).get("TRITON_CHAT_MAX_IN_FLIGHT")

    slots = {"engine": {"max_num_seqs": 9}}
    assert limit(NO_GPU) is None
    assert limit(NO_GPU, **slots) == "9"
    assert [limit(NO_GPU, frontends=count, **slots) for count in (2, 3)] == ["7", "5"]
    assert limit(NO_GPU, settings={"TRITON_CHAT_MAX_IN_FLIGHT": "7"}, **slots) == "7"
    assert limit(NO_GPU | {"TRITON_CHAT_MAX_IN_FLIGHT": "8"}, **slots) == "8"


def test_the_model_is_called_by_its_own_name_by_default() -> None:
    assert stack_environment(NO_GPU, LaunchOptions(), MODEL, PORTS)["TRITON_CHAT_SERVED_MODEL_NAME"] == "tiny"


def test_a_cpu_engine_gets_defaults_that_the_user_may_override() -> None:
    environment = triton_environment(NO_GPU, LaunchOptions(engine={"dtype": "float32"}), EMBEDDED)
    assert json.loads(environment["TRITON_CHAT_ENGINE_OPTIONS"]) == {"dtype": "float32", "enforce_eager": True}
    assert environment["VLLM_TARGET_DEVICE"] == "cpu"
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "2"


@pytest.mark.parametrize(
    ("cores", "engine", "bound"),
    [
        ({0, 1}, {}, "0,1"),
        ({5}, {}, "5"),
        ({0, 1, 2}, {}, None),
        ({0, 1}, {"tensor_parallel_size": 2}, None),
    ],
)
def test_of_few_cores_the_engine_gets_all(monkeypatch, cores, engine, bound) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores)
    environment = triton_environment(NO_GPU, LaunchOptions(engine=engine), EMBEDDED)
    assert environment.get("VLLM_CPU_OMP_THREADS_BIND") == bound


def test_variables_of_the_user_win() -> None:
    environment = triton_environment(NO_GPU | {"VLLM_CPU_KVCACHE_SPACE": "7"}, LaunchOptions(), EMBEDDED)
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "7"


def test_another_engine_gets_its_own_options_only() -> None:
    environment = NO_GPU | {"TRITON_CHAT_ENGINE": "scripted"}
    environment = triton_environment(environment, LaunchOptions(engine={"script": "s.json"}), EMBEDDED)
    assert json.loads(environment["TRITON_CHAT_ENGINE_OPTIONS"]) == {"script": "s.json"}


def test_the_engine_gets_the_markers_of_the_operator_s_reasoning_parser() -> None:
    def config(engine: dict[str, object] = {}, **given: str) -> object:  # noqa: B006 # not changed
        environment = triton_environment(NO_GPU | given, LaunchOptions(engine=engine), EMBEDDED)
        return json.loads(environment["TRITON_CHAT_ENGINE_OPTIONS"]).get("reasoning_config")

    seed = {"TRITON_CHAT_REASONING_PARSER": "seed_oss"}
    assert config(**seed) == {"reasoning_start_str": "<seed:think>", "reasoning_end_str": "</seed:think>"}
    assert config({"reasoning_config": {"reasoning_start_str": "<a>"}}, **seed) == {"reasoning_start_str": "<a>"}
    assert config() is None and config(TRITON_CHAT_REASONING_PARSER="auto") is None
    assert config(TRITON_CHAT_ENGINE="llmapi", **seed) is None


def test_the_embedded_server_finds_its_libraries() -> None:
    environment = triton_environment(NO_GPU | {"LD_LIBRARY_PATH": "/own"}, LaunchOptions(), EMBEDDED)
    expected = ["/cache/nvidia_pytriton.libs", str(libpython_dir()), "/cache/lib", "/own"]
    assert environment["LD_LIBRARY_PATH"].split(os.pathsep) == expected
    assert "--backend-directory=/cache/backends" in triton_command(EMBEDDED, LaunchOptions(), PORTS, "key")


def test_another_server_keeps_its_own_libraries_and_backends() -> None:
    server = TritonServer(Path("/opt/tritonserver/bin/tritonserver"))
    assert "LD_LIBRARY_PATH" not in triton_environment(NO_GPU, LaunchOptions(), server)
    assert not [word for word in triton_command(server, LaunchOptions(), PORTS, "key") if "backend-directory" in word]


def test_tritons_endpoints_are_bound_to_loopback_by_default() -> None:
    command = triton_command(EMBEDDED, LaunchOptions(model_config_name="trtllm"), PORTS, "key")
    for endpoint, port in (("http", 2), ("grpc", 3), ("metrics", 4)):
        assert f"--{endpoint}-address=127.0.0.1" in command
        assert f"--{endpoint}-port={port}" in command
    assert "--model-config-name=trtllm" in command


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_hidden_gpu_is_none(hidden: str) -> None:
    assert not has_gpu({"CUDA_VISIBLE_DEVICES": hidden})


def test_missing_setup_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path))
    monkeypatch.setattr("scripts.launcher.environment.CONTAINER_BINARY", tmp_path / "none")
    with pytest.raises(LaunchError, match="make setup"):
        find_triton(None)


def test_a_chosen_binary_must_run(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="--triton"):
        find_triton(tmp_path / "tritonserver")
    assert find_triton(Path(sys.executable)) == TritonServer(Path(sys.executable))
