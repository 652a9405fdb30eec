# SPDX-License-Identifier: Apache-2.0
"""`serve --engine trtllm`: the engine's folder, the config made for it, its repository, and the command for several GPUs."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.checkpoint import Checkpoint
from scripts.launcher import multi_gpu
from scripts.launcher.engine_folder import GUIDES, check_manifest, check_world_size, read_engine
from scripts.launcher.environment import TritonServer, gpu_count, stack_environment, triton_command
from scripts.launcher.errors import LaunchError
from scripts.launcher.layout import lay_out
from scripts.launcher.model import ServedModel
from scripts.launcher.multi_gpu import (
    check_gpus,
    check_trtllm,
    check_vllm_gpus,
    orchestrator_environment,
    parallel_command,
)
from scripts.launcher.options import LaunchOptions, parse_options
from scripts.launcher.ports import Ports
from scripts.launcher.trtllm import Trtllm
from scripts.launcher.trtllm_config import engine_name, filled_config, find_engine, guided_decoding
from scripts.shared.manifest import NAME, Manifest

PORTS = Ports(frontend=1, http=2, grpc=3, metrics=4)
CHECKPOINT = Checkpoint(Path("/models/tiny"), "llama", ("LlamaForCausalLM",), 100, 2048, (2,), 0)
MODEL = ServedModel(CHECKPOINT, "tiny", 0)


def make_engine(folder: Path, tp: int = 1, pp: int = 1, **manifest: str) -> Path:
    build = {"max_seq_len": 1024, "max_batch_size": 12}
    config = {"build_config": build, "pretrained_config": {"mapping": {"tp_size": tp, "pp_size": pp}}}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for rank in range(tp * pp):
        (folder / f"rank{rank}.engine").touch()
    if manifest:
        made = Manifest(
            checkpoint="/models/tiny",
            checkpoint_hash="0",
            qformat="full_prec",
            world_size=tp * pp,
            versions={},
            gpu="H200",
            compute="9.0",
            sizes={},
            parameters=manifest,
            commands=[],
            files={"rank0.engine": 0},
            made_by="test",
        )
        made.write(folder)
    return folder


def options_of(line: str) -> LaunchOptions:
    return parse_options(shlex.split(line))


def parameters(line: str, folder: Path) -> dict[str, str]:
    config = filled_config(options_of(line), read_engine(folder), CHECKPOINT.path)
    return {name: value.string_value for name, value in config.parameters.items()}


def test_what_an_engine_was_built_for(tmp_path: Path) -> None:
    engine = read_engine(make_engine(tmp_path, 2, 2, kv_cache_free_gpu_mem_fraction="0.5"))
    assert (engine.world_size, engine.max_seq_len, engine.max_batch_size) == (4, 1024, 12)
    assert engine.parameters == {"kv_cache_free_gpu_mem_fraction": "0.5"} and engine.guides is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no .*config.json.*trtllm-build"),
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"pretrained_config": {"mapping": {"tp_size": "2"}}}', "tp_size is '2'"),
        (
            '{"pretrained_config": {"mapping": {"tp_size": 2}}}',
            "world size of 2 .*rank0.engine, rank1.engine is missing",
        ),
    ],
    ids=["missing", "not-json", "no-object", "not-a-number", "ranks-missing"],
)
def test_a_folder_that_is_no_engine_says_why(tmp_path: Path, content: str | None, words: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(LaunchError, match=words):
        read_engine(tmp_path)


def test_another_world_size_than_the_engines_is_refused(tmp_path: Path) -> None:
    engine = read_engine(make_engine(tmp_path, 2, 1))
    check_world_size(engine, None)
    check_world_size(engine, 2)
    with pytest.raises(
        LaunchError, match=r"--world-size is 4.*world size of 2 \(tensor parallel 2, pipeline parallel 1"
    ):
        check_world_size(engine, 4)


def test_an_engine_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    check_manifest(read_engine(make_engine(tmp_path)), tmp_path, runs_here=False)
    engine = read_engine(make_engine(tmp_path, max_beam_width="2"))
    with pytest.raises(LaunchError, match=r"built from '/models/tiny', and .* is another checkpoint.*Build the engine"):
        check_manifest(engine, tmp_path, runs_here=False)
    (tmp_path / NAME).write_text("{}")
    with pytest.raises(LaunchError, match="format"):
        read_engine(tmp_path)


def test_the_name_of_the_engine() -> None:
    assert engine_name(options_of("m"), {}) == "vllm"
    assert engine_name(options_of("m"), {"TRITON_CHAT_ENGINE": "trtllm"}) == "trtllm"
    assert engine_name(options_of("m --engine vllm"), {"TRITON_CHAT_ENGINE": "trtllm"}) == "vllm"
    assert engine_name(options_of("m --model-config-name trtllm"), {}) == "trtllm"
    assert find_engine(options_of("m --tensor-parallel-size 2"), {}) is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("m --engine-dir {0}", "--engine-dir is for --engine trtllm"),
        ("m --world-size 2", "--world-size is for.*--tensor-parallel-size"),
        ("m --engine trtllm --engine-dir {0} --world-size 2", "--world-size is 2"),
        ("m --engine trtllm --engine-dir {0} --max-model-len 2k", "built for 1024 tokens"),
        ("m --engine trtllm --engine-dir {0} --model-repository {0}", None),
        ("m --engine trtllm", "there is no /engine/config.json"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, line: str, words: str | None) -> None:
    options = options_of(line.format(make_engine(tmp_path)))
    if words is None:
        with pytest.raises(LaunchError, match=r"has no tensorrt_llm/configs/trtllm.pbtxt"):
            filled_config(options, read_engine(tmp_path), CHECKPOINT.path)
        return
    with pytest.raises(LaunchError, match=words):
        find_engine(options, {})


def test_the_config_of_an_engine(tmp_path: Path) -> None:
    folder = make_engine(tmp_path, max_beam_width="2", enable_kv_cache_reuse="false", unknown_here="1")
    line = "m --engine trtllm --max-beam-width 4 --no-enable-chunked-context --kv-cache-free-gpu-mem-fraction 0.8"
    values = parameters(f"{line} --max-attention-window-size 512,2048", folder)
    assert values["gpt_model_path"] == str(folder) and values["tokenizer_dir"] == "/models/tiny"
    assert values["max_beam_width"] == "4", "the command line goes above the manifest"
    assert values["enable_kv_cache_reuse"] == "false", "the manifest goes above the repository"
    assert values["enable_chunked_context"] == "false"
    assert values["kv_cache_free_gpu_mem_fraction"] == "0.8"
    assert values["max_attention_window_size"] == "512,2048"
    assert values["batch_scheduler_policy"] == "guaranteed_no_evict"
    assert "unknown_here" not in values


@pytest.mark.parametrize(
    "option",
    [
        "--gpu-memory-utilization 0.9",
        "--gpt-model-path /x; did you mean --gpt-model-type?",
        "--exclude-input-in-output",
        "--max-beam-widt 4; did you mean --max-beam-width?",
        "--prot 9000; did you mean --port?",
    ],
)
def test_an_option_that_is_not_the_backends_is_refused(tmp_path: Path, option: str) -> None:
    option, _, guess = option.partition("; ")
    flag = option.split()[0]
    said = f"unknown option {flag}; {guess}" if guess else f"unknown option {flag} of --engine trtllm."
    with pytest.raises(LaunchError, match=f"^{re.escape(said)}$"):
        parameters(f"m --engine trtllm {option}", make_engine(tmp_path))


def test_guides_need_their_file(tmp_path: Path) -> None:
    def follows(line: str = "m") -> bool:
        return guided_decoding(filled_config(options_of(line), read_engine(tmp_path), CHECKPOINT.path))

    make_engine(tmp_path)
    assert not follows()
    assert follows("m --xgrammar-tokenizer-info-path /x.json")
    (tmp_path / GUIDES).write_text("{}")
    assert follows()
    assert not follows("m --guided-decoding-backend none")


def test_the_bound_of_waiting_requests(tmp_path: Path) -> None:
    options = options_of("m --engine trtllm --engine-max-requests 7")
    config = filled_config(options, read_engine(make_engine(tmp_path)), CHECKPOINT.path)
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 7


def test_the_repository_of_an_engine(tmp_path: Path) -> None:
    engine, folder = read_engine(make_engine(tmp_path / "engine")), tmp_path / "repository"
    folder.mkdir()
    source = LaunchOptions().model_repository
    lay_out(source, {"tensorrt_llm": filled_config(LaunchOptions(), engine, CHECKPOINT.path)}, folder)
    assert {path.name for path in folder.glob("*/config.pbtxt")} == {"config.pbtxt"}
    models = {path.name for path in source.iterdir() if (path / "config.pbtxt").is_file()}
    for model in models - {"tensorrt_llm"}:
        assert (folder / model).resolve() == (source / model).resolve(), "the same files as for vLLM"
    assert (folder / "tensorrt_llm" / "1").is_dir()
    assert str(engine.path) in (folder / "tensorrt_llm" / "config.pbtxt").read_text()


def test_the_engine_bounds_context_and_requests(tmp_path: Path) -> None:
    engine = read_engine(make_engine(tmp_path))
    options = options_of("m --engine trtllm")
    environment = stack_environment({"PATH": "/usr/bin"}, options, MODEL, PORTS, engine)
    assert environment["TRITON_CHAT_MAX_MODEL_LEN"] == "1024", "the checkpoint itself would allow 2048"
    assert environment["TRITON_CHAT_MAX_IN_FLIGHT"] == "12"
    assert environment["TRITON_CHAT_ENGINE"] == "trtllm"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TritonServer, dict[str, str]]:
    """The programs of the Triton image, and two GPUs."""
    monkeypatch.setattr(multi_gpu, "gpu_count", lambda environment: 2)
    (tmp_path / "bin").mkdir()
    for program in ("tritonserver", "mpirun"):
        (tmp_path / "bin" / program).touch(mode=0o755)
    (tmp_path / "backends" / "tensorrtllm").mkdir(parents=True)
    return TritonServer(tmp_path / "bin" / "tritonserver"), {"PATH": str(tmp_path / "bin")}


def test_what_several_gpus_need(image: tuple[TritonServer, dict[str, str]]) -> None:
    server, environment = image
    check_trtllm(server, LaunchOptions(), 2, environment)
    with pytest.raises(LaunchError, match="the engine needs 4 GPUs, and 2 can be used here"):
        check_trtllm(server, LaunchOptions(), 4, environment)
    check_trtllm(server, LaunchOptions(), 4, environment | {"OMPI_MCA_orte_default_hostfile": "/tmp/hosts"})
    (server.binary.parent / "mpirun").unlink()
    check_trtllm(server, LaunchOptions(), 1, environment)
    for options, world_size in ((LaunchOptions(), 2), (LaunchOptions(mpi_mode="orchestrator"), 1)):
        with pytest.raises(LaunchError, match="mpirun is missing"):
            check_trtllm(server, options, world_size, environment)
    (server.binary.parents[1] / "backends" / "tensorrtllm").rmdir()
    with pytest.raises(LaunchError, match="has no backend tensorrtllm"):
        check_trtllm(server, LaunchOptions(), 1, environment)


def test_the_command_of_each_rank(image: tuple[TritonServer, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    options = LaunchOptions()
    single = triton_command(image[0], options, PORTS, "key")
    assert parallel_command(single, options, 1) == single
    command = parallel_command(single, options, 2)
    first, second = " ".join(command[1:]).split(" : ")
    assert command[:3] == ["mpirun", "-n", "1"] and "--load-model=*" in first
    assert second.startswith("-n 1 ") and "--load-model=tensorrt_llm" in second and "--load-model=*" not in second
    assert "--model-control-mode=explicit" in second
    prefixes = [word.split("=")[-1] for word in command if "shm-region-prefix-name" in word]
    assert len(set(prefixes)) == 2, "the ranks share no memory by one name"
    assert prefixes[1].startswith(prefixes[0]), "the launcher removes both by the first's prefix"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert parallel_command(single, options, 2)[:2] == ["mpirun", "--allow-run-as-root"]


def test_an_orchestrator_is_one_server_that_leaves_the_gpus_alone() -> None:
    options = options_of("m --mpi-mode orchestrator")
    command = parallel_command(["tritonserver", "--load-model=*"], options, 2)
    assert command.count("tritonserver") == 1 and command[command.index("tritonserver") - 2 :][:2] == ["-n", "1"]
    assert {"--cuda-memory-pool-byte-size=0:0", "--cuda-memory-pool-byte-size=1:0"} <= set(command)
    assert orchestrator_environment(options)["TRTLLM_ORCHESTRATOR"] == "1"
    assert orchestrator_environment(LaunchOptions()) == {}


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("m -tp 2", None),
        ("m -tp 4", "--tensor-parallel-size 4 needs 4 GPUs, and 2"),
        ("m -tp 2 -pp 2", "--tensor-parallel-size 2 x --pipeline-parallel-size 2 needs 4 GPUs"),
        ("m -tp 4 --distributed-executor-backend ray", None),
        ("m -tp 4 --nnodes 2", None),
    ],
)
def test_vllms_own_sizes(image: Any, line: str, needed: str | None) -> None:
    if needed is None:
        check_vllm_gpus(options_of(line).engine, {})
        return
    with pytest.raises(LaunchError, match=needed):
        check_vllm_gpus(options_of(line).engine, {})


def test_hidden_gpus_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "os.listdir", lambda folder: ["nvidia0", "nvidia1", "nvidia2", "nvidiactl", "nvidia-uvm", "null"]
    )
    shown = {None: 3, "": 0, "-1": 0, "0": 1, "0,2": 2, "0,-1,2": 1, "GPU-a,GPU-b": 2, "0,1,2,3": 3}
    for value, count in shown.items():
        assert gpu_count({} if value is None else {"CUDA_VISIBLE_DEVICES": value}) == count
    with pytest.raises(LaunchError, match="CUDA_VISIBLE_DEVICES hides"):
        check_gpus(2, {"CUDA_VISIBLE_DEVICES": "0"}, "the engine")


def test_everything_for_one_stack(tmp_path: Path, image: tuple[TritonServer, dict[str, str]]) -> None:
    server, environment = image
    options = options_of(f"m --engine trtllm --model-config-name trtllm --max-beam-width 2 --engine-dir {tmp_path}")
    trtllm = Trtllm(options, read_engine(make_engine(tmp_path, 2)), MODEL, server, environment)
    repository = trtllm.options.model_repository
    assert trtllm.options.model_config_name is None and (repository / "ensemble" / "config.pbtxt").is_file()
    assert trtllm.environment == {"TRITON_CHAT_ENGINE": "trtllm", "TRITON_CHAT_GUIDED_DECODING": "false"}
    command = trtllm.command(triton_command(server, trtllm.options, PORTS, "key"))
    assert command[0] == "mpirun" and command.count(f"--model-repository={repository}") == 2
    assert command.count("--disable-auto-complete-config") == 2
    trtllm.close()
    assert not repository.exists()


def test_adapters_go_to_preprocessing(tmp_path: Path, image: tuple[TritonServer, dict[str, str]]) -> None:
    server, environment = image
    options = options_of(f"m --engine trtllm --enable-lora --max-lora-rank 32 --engine-dir {tmp_path}")
    adapters = [{"name": "sql", "path": "/adapters/sql"}]
    options = replace(options, engine={**options.engine, "lora_modules": adapters})
    trtllm = Trtllm(options, read_engine(make_engine(tmp_path, 2)), MODEL, server, environment)
    assert json.loads(trtllm.environment["TRITON_CHAT_LORA_MODULES"]) == adapters
    trtllm.close()
    options = replace(options, engine={"enable_lora": True, "allowed_lora_path": ["/adapters"]})
    with pytest.raises(LaunchError, match="unknown option --allowed-lora-path"):
        Trtllm(options, read_engine(tmp_path), MODEL, server, environment)
