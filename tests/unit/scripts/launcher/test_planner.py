# SPDX-License-Identifier: Apache-2.0
"""Several models are resolved and checked together, before anything is started."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from common.served_model import ServedModelInfo
from scripts.launcher import LaunchError, checks, environment, planner
from scripts.launcher.models_file import read_models
from scripts.launcher.options import parse_options
from scripts.launcher.planner import PlannedModel, Planner, fits, may_load_together
from scripts.launcher.ports import Ports

CONFIG = {"model_type": "llama", "vocab_size": 10, "max_position_embeddings": 64, "eos_token_id": 1}
CPU = {"CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (checks, planner):
        monkeypatch.setattr(module, "available_memory", lambda: 64 * 2**30)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    with (folder / "model.safetensors").open("wb") as weights:
        weights.truncate(2**30)
    return folder


def plan(
    checkpoint: Path,
    entries: str,
    base: Mapping[str, str] = CPU,
    line: tuple[str, ...] = (),
    running: Sequence[PlannedModel] | None = None,
) -> dict[str, PlannedModel]:
    """Plan the entries of a file, in which MODEL is the checkpoint."""
    file = checkpoint.parent / "models.yaml"
    file.write_text("models:\n" + entries.replace("MODEL", str(checkpoint)))
    options = parse_options(["--models", str(file), *line])
    shared = environment.server_environment(base, options, Ports(1, 2, 3, 4))
    planned = Planner(base, shared, None, Console(quiet=True)).plan(read_models(options), running=running)
    return {one.name: one for one in planned}


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    names = [f"nvidia{number}" for number in range(count)]
    monkeypatch.setattr(environment.os, "listdir", lambda folder: names)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner.os, "sched_getaffinity", lambda pid: range(9))


def cores_of(planned: Mapping[str, PlannedModel]) -> dict[str, str | None]:
    return {name: one.plan.environment.get("VLLM_CPU_OMP_THREADS_BIND") for name, one in planned.items()}


def test_models_that_stay_keep_their_cores_and_others_get_the_rest(checkpoint: Path, cores: None) -> None:
    entry = "  {}: {{model: MODEL}}\n"
    first = plan(checkpoint, entry.format("a") + entry.format("b"))
    assert cores_of(first) == {"a": "0,1,2,3", "b": "4,5,6,7"}
    # The one that nobody had.
    added = plan(checkpoint, "".join(map(entry.format, "abc")), running=list(first.values()))
    assert cores_of(added) == {"a": "0,1,2,3", "b": "4,5,6,7", "c": "8"}
    # Those of one that is gone, and of one that changes.
    other = plan(
        checkpoint,
        entry.format("b") + "  a: {model: MODEL, dtype: half}\n" + entry.format("d"),
        running=list(added.values()),
    )
    assert cores_of(other) == {"b": "4,5,6,7", "a": "0,1", "d": "2,3"}
    # When nothing is left, they share all.
    every = [replace(first["a"], cores=",".join(map(str, range(9))))]
    assert cores_of(plan(checkpoint, "".join(map(entry.format, "ae")), running=every))["e"] == "0,1,2,3,4,5,6,7"


def test_each_model_has_its_own_variables(checkpoint: Path, cores: None) -> None:
    found = plan(
        checkpoint,
        "  a: {model: MODEL, aliases: [x], styler: qwen3, max_in_flight: 3, dtype: half, max_model_len: 32}\n"
        "  b: {model: MODEL, environment: {VLLM_CPU_KVCACHE_SPACE: 1}, enable_thinking: false}\n",
        line=("--max-queued", "7"),
    )
    a, b = found["a"].plan, found["b"].plan
    assert a.variables["TRITON_CHAT_MODEL"] == str(checkpoint)
    assert (a.variables["TRITON_CHAT_STYLER"], a.variables["TRITON_CHAT_MAX_MODEL_LEN"]) == ("qwen3", "32")
    assert json.loads(a.variables["TRITON_CHAT_ENGINE_OPTIONS"])["dtype"] == "half"
    assert "TRITON_CHAT_STYLER" not in b.variables
    assert a.environment == {
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "0,1,2,3",
    }
    assert b.environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert b.environment["VLLM_CPU_OMP_THREADS_BIND"] == "4,5,6,7"
    assert (found["a"].memory, found["b"].memory) == (3 * 2**30, 2 * 2**30)
    assert a.info == ServedModelInfo(names=("a", "x"), max_model_len=32, modalities=("text",), max_in_flight=3)
    assert b.info == ServedModelInfo(names=("b",), max_model_len=64, modalities=("text",), enable_thinking=False)


def test_memory_is_checked_for_all_together(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "available_memory", lambda: 5 * 2**30)
    entries = "  a: {model: MODEL}\n  b: {model: MODEL}\n"
    said = r"need 6\.0 GiB of memory together, but only 5\.0 GiB is available: a 1\.0 GiB of weights and 2\.0 GiB of KV"
    with pytest.raises(LaunchError, match=said):
        plan(checkpoint, entries)
    plan(checkpoint, entries, CPU | {"VLLM_CPU_KVCACHE_SPACE": "1"})
    own = plan(checkpoint, entries.replace("}", ", engine: 'mine:Engine'}"))
    assert [one.memory for one in own.values()] == [2**30] * 2, "only vLLM has such a cache"


def test_a_model_sees_its_own_gpus(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 4)
    entries = "  a: {model: MODEL, devices: [0]}\n  b: {model: MODEL, devices: [2, 1], tensor_parallel_size: 2}\n"
    found = plan(checkpoint, entries, {})
    assert [one.plan.environment for one in found.values()] == [
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "2,1"},
    ]
    # Numbers count what the launcher itself may use.
    found = plan(checkpoint, entries, {"CUDA_VISIBLE_DEVICES": "3,2,0"})
    assert found["b"].plan.environment == {"CUDA_VISIBLE_DEVICES": "0,2"}
    with pytest.raises(LaunchError, match="model 'b': devices has 2, but 2 GPUs can be used here, counted from 0"):
        plan(checkpoint, entries, {"CUDA_VISIBLE_DEVICES": "3,2"})
    with pytest.raises(LaunchError, match="model 'a': --tensor-parallel-size 2 needs 2 GPUs, and 1 can be used here"):
        plan(checkpoint, "  a: {model: MODEL, devices: [1], tensor_parallel_size: 2}\n", {})


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("", "", r"GPU 0 is to be shared, .* more than 1: 0\.92 \(a\) \+ 0\.92 \(b\)"),
        ("gpu_memory_utilization: 0.5", "", r"0\.5 \(a\) \+ 0\.92 \(b\)"),
        ("gpu_memory_utilization: 0.5", "gpu_memory_utilization: 0.5", ""),
        ("devices: [0]", "devices: [1]", ""),
        ("devices: [1]", "devices: [0, 1], tensor_parallel_size: 2", r"GPU 1 is to be shared"),
        # vLLM takes the first of two.
        ("devices: [1]", "devices: [0, 1]", ""),
        ("kv_cache_memory_bytes: 1G", "", ""),
        ("engine: 'mine:Engine'", "", ""),
    ],
)
def test_the_shares_of_a_gpu_are_checked(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, a: str, b: str, said: str
) -> None:
    gpus(monkeypatch, 2)
    entries = f"  a: {{model: MODEL, {a}}}\n  b: {{model: MODEL, {b}}}\n"
    if said:
        with pytest.raises(LaunchError, match=said):
            plan(checkpoint, entries, {})
    else:
        assert plan(checkpoint, entries, {})["a"].memory == 0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{model: /nowhere}", "model 'a': there is no folder /nowhere"),
        (
            "{model: MODEL, tool_call_parser: hermit}",
            "model 'a': --tool-call-parser: unknown tool-call parser 'hermit'",
        ),
        ("{model: MODEL, engine: trtllm, engine_dir: /nowhere}", r"model 'a': there is no /nowhere/config\.json"),
    ],
)
def test_a_model_that_cannot_be_served_is_named(checkpoint: Path, entry: str, said: str) -> None:
    with pytest.raises(LaunchError, match=said):
        plan(checkpoint, f"  a: {entry}\n")


def make_engine(folder: Path, size: int) -> Path:
    folder.mkdir()
    built = {"build_config": {}, "pretrained_config": {"mapping": {"tp_size": size, "pp_size": 1}}}
    (folder / "config.json").write_text(json.dumps(built))
    for rank in range(size):
        (folder / f"rank{rank}.engine").touch()
    return folder


def test_the_cpp_backend_serves_one_gpu_of_several_models(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 2)
    one, two = make_engine(tmp_path / "one", 1), make_engine(tmp_path / "two", 2)
    entry = "  a: {model: MODEL, engine: trtllm, devices: [1], engine_dir: %s}\n"
    planned = plan(checkpoint, entry % one, {})["a"].plan
    parameters = planned.configs["tensorrt_llm"].parameters
    assert parameters["gpt_model_path"].string_value == str(one)
    assert parameters["gpu_device_ids"].string_value == "1"
    assert planned.variables["TRITON_CHAT_ENGINE"] == "trtllm"
    with pytest.raises(
        LaunchError, match="model 'a': --engine trtllm on 2 GPUs starts a tritonserver for each of them"
    ):
        plan(checkpoint, entry % two, {})


@pytest.mark.parametrize(
    ("cores", "chosen"),
    [(range(2), ["0", "1"]), (range(1), ["0", "0"]), (range(4), ["0", "1,2"]), (range(9), ["0,1,2,3", "4,5,6,7"])],
)
def test_models_have_cores_of_their_own(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, cores: range, chosen: list[str]
) -> None:
    monkeypatch.setattr(planner.os, "sched_getaffinity", lambda pid: cores)
    found = plan(checkpoint, "  a: {model: MODEL}\n  b: {model: MODEL}\n  c: {model: MODEL, engine: 'mine:Engine'}\n")
    assert [found[name].plan.environment["VLLM_CPU_OMP_THREADS_BIND"] for name in "ab"] == chosen
    chosen_by_the_operator = CPU | {"VLLM_CPU_OMP_THREADS_BIND": "0-5"}
    found = plan(checkpoint, "  a: {model: MODEL}\n  b: {model: MODEL}\n", chosen_by_the_operator)
    assert all("VLLM_CPU_OMP_THREADS_BIND" not in one.plan.environment for one in found.values())


def test_a_model_is_loaded_beside_others_only_if_there_is_room(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = plan(checkpoint, "  a: {model: MODEL}\n")["a"]
    assert fits(on_cpu) is None
    monkeypatch.setattr(planner, "available_memory", lambda: 2 * 2**30)
    assert fits(on_cpu) == "it needs 3.0 GiB of memory, and 2.0 GiB is available"
    gpus(monkeypatch, 2)
    on_gpu = plan(checkpoint, "  a: {model: MODEL, devices: [1], gpu_memory_utilization: 0.5}\n", {})["a"]
    for free, said in ((41, None), (39, "it needs 40.0 GiB of GPU 1, and 39.0 GiB is free")):
        memory = {"0": (0, 80 * 2**30), "1": (free * 2**30, 80 * 2**30)}
        monkeypatch.setattr(planner, "gpu_memory", lambda memory=memory: memory)
        assert fits(on_gpu) == said


@pytest.mark.parametrize(
    ("entries", "count", "cores", "together"),
    [
        ("", 0, 8, True),
        ("", 0, 7, False),
        ("devices: [NUMBER]", 2, 8, True),
        ("devices: [0], gpu_memory_utilization: 0.4", 2, 8, False),
    ],
)
def test_models_are_loaded_together_if_that_is_no_slower(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, entries: str, count: int, cores: int, together: bool
) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setattr(planner.os, "sched_getaffinity", lambda pid: range(cores))
    lines = "".join(f"  m{number}: {{model: MODEL, {entries}}}\n".replace("NUMBER", str(number)) for number in (0, 1))
    planned = list(plan(checkpoint, lines, {}).values())
    assert may_load_together(planned) is together
    monkeypatch.setattr(planner, "available_memory", lambda: 2**30)
    assert may_load_together(planned) is (together and count > 0)
