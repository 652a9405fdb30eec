# SPDX-License-Identifier: Apache-2.0
"""Checks before anything is started."""

import json
import resource
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from common.checkpoint import Checkpoint
from common.vision_path import VisionPath
from scripts.launcher import LaunchError, checks
from scripts.launcher.checks import (
    GIB,
    LEAST_FILES,
    MOST_FILES,
    available_memory,
    check_before_weights,
    check_memory,
    check_server,
    check_settings,
    raise_open_files,
)
from scripts.launcher.display import curl
from scripts.launcher.environment import TritonServer
from scripts.launcher.model import PREPARED, Prepared, ServedModel, resolve_model
from scripts.launcher.options import LaunchOptions
from scripts.launcher.ports import choose_ports
from scripts.launcher.readiness import model_states
from scripts.setup.check_packages import numpy_problem, torch_problem
from tests.fakes.certificate import write_certificate
from tests.support.vlm_checkpoints import make_internvl, make_tokenizer

MODEL = ServedModel(Checkpoint(Path("/models/tiny"), "llama", ("LlamaForCausalLM",), 100, 2048, (2,), 0), "tiny", 1)
FREE = LaunchOptions(port=0, triton_http_port=0, triton_grpc_port=0, triton_metrics_port=0)
CONFIG = {"model_type": "llama", "vocab_size": 10, "max_position_embeddings": 64, "eos_token_id": 1}


def test_packages_of_another_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch_problem() is None
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    problem = torch_problem()
    assert problem and "torchvision::nms" in problem and "pip uninstall torchvision" in problem


@pytest.mark.parametrize("package", ["torchaudio", "torchcodec"])
def test_a_conversion_that_fails_for_packages_of_another_torch(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(console: Console) -> Path:
        raise OSError(f"Could not load this library: /x/_{package}.so")

    monkeypatch.setitem(PREPARED, "smollm2", Prepared("smollm2", prepare))
    (tmp_path / f"{package}.py").write_text(f"raise OSError('Could not load this library: /x/_{package}.so\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LaunchError, match=rf"{package} does not fit the torch .*`pip uninstall {package}`") as caught:
        resolve_model("smollm2", Console(quiet=True))
    assert "\n" not in str(caught.value)


def test_free_ports_are_chosen_and_differ() -> None:
    ports = choose_ports(FREE)
    assert len({ports.frontend, ports.http, ports.grpc, ports.metrics}) == 4


@pytest.mark.parametrize(
    "flag", ["--port", "--triton-http-port", "--triton-grpc-port", "--triton-metrics-port"], ids=lambda flag: flag[2:]
)
def test_a_taken_port_is_named_with_its_flag(flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = replace(FREE, **{flag[2:].replace("-", "_"): port})
        with pytest.raises(LaunchError, match=rf"port {port} .*{flag}"):
            choose_ports(options)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"192\.0\.2\.1"):
        choose_ports(replace(FREE, host="192.0.2.1"))


def test_a_whole_internvl_checkpoint_is_split_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path / "cache"))
    whole = make_internvl(tmp_path / "whole", make_tokenizer(tmp_path / "tokenizer")).path
    served = resolve_model(str(whole), Console(quiet=True))
    assert served.name == "whole"
    assert served.checkpoint.model_type == "qwen2"
    assert (served.checkpoint.path / "vision" / "model.safetensors").is_file()
    weights = served.checkpoint.path / "model.safetensors"
    assert served.weight_bytes > weights.stat().st_size, "the vision part counts too"
    before = weights.stat().st_mtime_ns
    assert resolve_model(str(whole), Console(quiet=True)) == served
    assert weights.stat().st_mtime_ns == before


def test_the_path_of_pictures_decides_whether_it_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path / "cache"))
    whole = make_internvl(tmp_path / "whole", make_tokenizer(tmp_path / "tokenizer")).path
    served = resolve_model(str(whole), Console(quiet=True), "engine")
    assert (served.checkpoint.path, served.vision) == (whole, VisionPath.ENGINE)
    split = resolve_model(str(whole), Console(quiet=True))
    assert split.vision is VisionPath.VIT
    assert resolve_model(str(split.checkpoint.path), Console(quiet=True)).vision is VisionPath.VIT
    for model, vision, engine, message in (
        (split.checkpoint.path, "engine", None, "from before its split"),
        (whole, "engine", "trtllm", "--engine trtllm takes no pictures"),
        (whole, "both", None, "vision must be one of auto"),
    ):
        with pytest.raises(LaunchError, match=message):
            resolve_model(str(model), Console(quiet=True), vision, engine)


def test_a_checkpoint_that_cannot_be_split_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CHAT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    with pytest.raises(LaunchError, match="could not be split into language model and vision part"):
        resolve_model(str(tmp_path), Console(quiet=True))


@pytest.mark.parametrize(("engine", "needed"), [(None, True), ("llmapi", True), ("trtllm", False), ("own:X", False)])
def test_a_hub_model_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str | None, needed: bool
) -> None:
    """An engine of TensorRT-LLM holds the weights, and an own engine may need none."""
    folder = checkpoint(tmp_path / "bare", {"config.json": json.dumps(CONFIG), "tokenizer.json": "{}"})
    monkeypatch.setattr("scripts.launcher.model._downloaded", lambda hub_id, ignored: folder)
    if not needed:
        assert resolve_model("org/bare", Console(quiet=True), engine=engine).weight_bytes == 0
        return
    with pytest.raises(LaunchError, match="'org/bare' has no weights on the hub"):
        resolve_model("org/bare", Console(quiet=True), engine=engine)


def test_too_little_memory_is_reported_in_figures() -> None:
    huge = replace(MODEL, weight_bytes=10_000 * GIB)
    with pytest.raises(LaunchError, match=r"10000\.0 GiB for its weights and 3\.0 GiB for the KV cache"):
        check_memory(huge, {"CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_KVCACHE_SPACE": "3"})


def test_a_kv_cache_is_counted_for_vllm_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 5 * GIB)
    model, cpu = replace(MODEL, weight_bytes=4 * GIB), {"CUDA_VISIBLE_DEVICES": ""}
    for engine in ("mine:Engine", "llmapi"):
        check_before_weights(model, LaunchOptions(engine_name=engine), cpu)
        check_before_weights(model, LaunchOptions(), cpu | {"TRITON_CHAT_ENGINE": engine})
        with pytest.raises(LaunchError, match=r"6\.0 GiB for its weights, but only 5\.0 GiB of memory is available"):
            check_before_weights(replace(model, weight_bytes=6 * GIB), LaunchOptions(engine_name=engine), cpu)
    with pytest.raises(LaunchError, match=r"4\.0 GiB for its weights and 2\.0 GiB for the KV cache"):
        check_before_weights(model, LaunchOptions(), cpu)


def test_enough_memory_passes() -> None:
    check_memory(MODEL, {"CUDA_VISIBLE_DEVICES": "", "VLLM_CPU_KVCACHE_SPACE": "0"})


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit, used = tmp_path / "limit", tmp_path / "used"
    limit.write_text("1000\n")
    used.write_text("400\n")
    monkeypatch.setattr("scripts.launcher.checks._CGROUP_FILES", ((str(limit), str(used)),))
    assert available_memory() == 600
    limit.write_text("max\n")
    assert available_memory() > 600


@pytest.mark.parametrize(
    ("statistics", "free"),
    [
        ("anon 100\nfile 300\ninactive_file 250\nactive_file 50\n", 850),
        ("cache 0\ninactive_file 8\ntotal_cache 300\ntotal_inactive_file 250\n", 850),
        ("anon 100\n", 600),
    ],
    ids=["version 2", "version 1", "unknown"],
)
def test_cached_files_of_a_container_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statistics: str, free: int
) -> None:
    for name, text in (("limit", "1000\n"), ("used", "400\n"), ("memory.stat", statistics)):
        (tmp_path / name).write_text(text)
    files = str(tmp_path / "limit"), str(tmp_path / "used")
    monkeypatch.setattr("scripts.launcher.checks._CGROUP_FILES", (files,))
    assert available_memory() == free


@pytest.mark.parametrize(("version", "is_problem"), [("1.26.4", False), ("2.0.0", True), ("2.4.6", True)])
def test_numpy_2_is_a_problem_for_the_embedded_server(version: str, is_problem: bool) -> None:
    assert (numpy_problem(version) is not None) == is_problem


def test_a_repository_without_the_ensemble_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="ensemble"):
        check_server(TritonServer(Path("tritonserver")), LaunchOptions(model_repository=tmp_path))


def test_a_bad_setting_of_the_frontend_stops_the_start() -> None:
    with pytest.raises(LaunchError, match="TRITON_CHAT_MAX_IN_FLIGHT='none'"):
        check_settings({"TRITON_CHAT_MAX_IN_FLIGHT": "none"})


def test_a_store_of_responses_is_opened_before_anything_starts(tmp_path: Path) -> None:
    check_settings({"TRITON_CHAT_RESPONSE_STORE": str(tmp_path / "responses.db")})
    with pytest.raises(LaunchError, match="--response-store="):
        check_settings({"TRITON_CHAT_RESPONSE_STORE": str(tmp_path)})


def test_a_certificate_is_loaded_before_anything_starts(tmp_path: Path) -> None:
    good, other, text = tmp_path / "good.pem", tmp_path / "other.pem", tmp_path / "text.pem"
    write_certificate(good)
    write_certificate(other)
    text.write_text("no certificate")

    def check(certificate: Path, key: Path) -> None:
        check_settings({"TRITON_CHAT_TLS_CERTIFICATE": str(certificate), "TRITON_CHAT_TLS_KEY": str(key)})

    check(good, good)
    with pytest.raises(LaunchError, match=r"they are not PEM"):
        check(text, text)
    with pytest.raises(LaunchError, match=r"the key is not the certificate's\.$"):
        check(good, other)
    with pytest.raises(LaunchError, match=r"--tls-key='.*none': expected a PEM file: No such file or directory\.$"):
        check(good, tmp_path / "none")


def test_directories_of_pictures_must_exist(tmp_path: Path) -> None:
    check_settings({"TRITON_CHAT_IMAGE_DIRS": str(tmp_path)})
    with pytest.raises(LaunchError, match=r"--image-dirs='.*none': expected a directory that exists\.$"):
        check_settings({"TRITON_CHAT_IMAGE_DIRS": f"{tmp_path},{tmp_path}/none"})


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(LaunchError, match=r"model\.gguf' is a file\. --model takes the folder"):
        resolve_model(str(tmp_path / "model.gguf"), Console())


def checkpoint(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_a_checkpoint_folder_is_served_under_its_own_name(tmp_path: Path) -> None:
    files = {"config.json": json.dumps(CONFIG), "tokenizer.json": "{}", "a.safetensors": "1234", "b.safetensors": "5"}
    model = resolve_model(str(checkpoint(tmp_path / "tiny", files)), Console(quiet=True))
    assert (model.name, model.weight_bytes, model.checkpoint.max_position_embeddings) == ("tiny", 5, 64)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no config.json"),
        ({"config.json": "{"}, "not valid JSON"),
        ({"config.json": json.dumps(CONFIG)}, "tokenizer"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_explained(tmp_path: Path, files: dict[str, str], words: str) -> None:
    with pytest.raises(LaunchError, match=words):
        resolve_model(str(checkpoint(tmp_path / "m", files)), Console(quiet=True))


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "~/nowhere", "a/b/c"])
def test_the_hub_is_not_asked_for_a_missing_path(model: str) -> None:
    with pytest.raises(LaunchError, match="there is no folder"):
        resolve_model(model, Console(quiet=True))


def test_offline_a_hub_id_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        LaunchError, match=r"'no/such-model' is not a folder here, and .* 'smollm2', which needs no hub"
    ):
        resolve_model("no/such-model", Console(quiet=True))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((64, 4096), (4096, 4096)),
        ((1024, 10**9), (MOST_FILES, 10**9)),
        ((1024, resource.RLIM_INFINITY), (MOST_FILES, resource.RLIM_INFINITY)),
        ((LEAST_FILES, LEAST_FILES), None),
        ((10**6, 10**6), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_as_many_files_may_be_open_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda kind, wanted: made.append(wanted))
    raise_open_files()
    assert made == ([expected] if expected else [])


def test_too_few_open_files_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 64))
    with pytest.raises(LaunchError, match=r"only 64 files here, and 256 are the least.*ulimit -n"):
        raise_open_files()


def test_model_states_come_from_the_servers_log() -> None:
    log = [
        'I1121 model_lifecycle.cc:472] "loading: vit:1"',
        'I1121 model_lifecycle.cc:472] "loading: tensorrt_llm:1"',
        'I1121 model_lifecycle.cc:472] "loading: postprocessing:1"',
        "I1121 model_lifecycle.cc:839] \"successfully loaded 'vit'\"",
        "E1121 model_lifecycle.cc:641] \"failed to load 'tensorrt_llm' version 1: Internal: x\"",
        "E1121 model_repository_manager.cc:1460] \"Poll failed for model directory 'ensemble': y\"",
    ]
    expected = {"vit": "ready", "tensorrt_llm": "failed", "postprocessing": "loading", "ensemble": "failed"}
    assert model_states(log) == expected


def test_curl_is_one_shell_line() -> None:
    line = curl("https://127.0.0.1:1", "it's", with_key=True)
    assert "--insecure" in line
    assert "$API_KEY" in line
    assert "\n" not in line
