# SPDX-License-Identifier: Apache-2.0
"""Checks of `triton-chat build engine` before it builds."""

import re
from pathlib import Path

import pytest

from scripts.engine_build import checks
from scripts.engine_build.plan import Request, engine_bytes, kv_bytes_per_token, parameters
from scripts.engine_build.presets import PRESETS
from scripts.engine_build.source import Source
from scripts.shared.errors import EngineError
from scripts.shared.toolchain import Gpu, Toolchain, find_gpus
from tests.support.engine_models import GEMMA3_4B, INTERNLM2_8B, INTERNVIT, QWEN2_7B, QWEN3_8B, TOKENS, checkpoint

GIB = 2**30
H200, L4, V100 = Gpu("H200", (9, 0), 140 * GIB), Gpu("L4", (8, 9), 24 * GIB), Gpu("V100", (7, 0), 16 * GIB)
VERSIONS = {"tensorrt_llm": "1.2.1"}


def source(tmp_path: Path, config: dict = QWEN3_8B, vision: dict | None = None, **changed: object) -> Source:
    return Source.open(checkpoint(tmp_path / "model", config | changed, vision))


def request(tmp_path: Path, read: Source, preset: str = "qwen3", qformat: str = "full_prec", **values) -> Request:
    """Make a request. values: fields of the request and of the preset, by name."""
    own = {name: values.pop(name) for name in ("awq_block_size", "calib_dataset") if name in values}
    return Request(read, tmp_path / "engine", PRESETS[preset].changed(**values), qformat, **own)


def problems(asked: Request) -> list[str]:
    return [each.text for each in checks.inputs(asked) if each.verdict == "error"]


def warnings(asked: Request) -> list[str]:
    return [each.subject for each in checks.inputs(asked) if each.verdict == "warning"]


def on(asked: Request, tmp_path: Path, *gpus: Gpu, versions: dict = VERSIONS) -> list[str]:
    """Findings on a machine with those GPUs, without those on tools."""
    found = checks.machine(asked, Toolchain(tmp_path, versions, gpus))
    return [f"{each.verdict} {each.text}" for each in found if each.verdict != "ok" and each.subject != "tools"]


@pytest.mark.parametrize(
    ("config", "vision", "preset"),
    [
        (QWEN3_8B, None, "qwen3"),
        (QWEN2_7B, None, "qwen2-4gpu"),
        (INTERNLM2_8B, INTERNVIT, "internvl2_5"),
        (GEMMA3_4B, None, "gemma3"),
    ],
)
def test_each_preset_fits_its_model(config: dict, vision: dict | None, preset: str, tmp_path: Path) -> None:
    assert problems(request(tmp_path, source(tmp_path, config, vision), preset)) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"max_seq_len": 32256}, "--max-seq-len 32256 leaves no answer after --max-input-len 32256"),
        ({"max_num_tokens": 2**20}, "--max-num-tokens 1048576 is more than all requests can hold together"),
        ({"max_batch_size": 0}, "must be at least 1"),
        ({"tp_size": 3}, "--tp-size 3 does not share out 32 heads and 8 KV heads"),
        ({"tp_size": 0}, "--tp-size at least 1"),
        ({"pp_size": 37}, "--pp-size must be 1 to 36"),
        ({"max_tiles": 13}, "has no vision part for tiles"),
        ({"qformat": "int4_awq", "awq_block_size": 32}, "--awq-block-size must be one of (64, 128), not 32"),
        ({"qformat": "fp8", "calib_dataset": "/nowhere"}, "there is no --calib-dataset /nowhere"),
    ],
)
def test_what_cannot_be_built_is_named(values: dict, words: str, tmp_path: Path) -> None:
    (found,) = problems(request(tmp_path, source(tmp_path), **values))
    assert words in found


def test_more_gpus_than_kv_heads_share_them(tmp_path: Path) -> None:
    assert problems(request(tmp_path, source(tmp_path), tp_size=16)) == []


def test_awq_blocks_must_divide_each_share(tmp_path: Path) -> None:
    read = source(tmp_path, QWEN2_7B)
    assert problems(request(tmp_path, read, qformat="int4_awq", tp_size=4)) == []
    (found,) = problems(request(tmp_path, read, qformat="int4_awq", awq_block_size=128, tp_size=28))
    assert found == "blocks of 128 on 28 GPUs do not divide [18944]."


def test_lengths_that_work_but_cost(tmp_path: Path) -> None:
    read = source(tmp_path)
    assert warnings(request(tmp_path, read, max_num_tokens=8192)) == ["max_num_tokens"]
    assert warnings(request(tmp_path, read, max_seq_len=65536)) == ["positions", "max_num_tokens"]
    assert warnings(request(tmp_path, read, max_num_tokens=8192, max_input_len=8192)) == []


@pytest.mark.parametrize(
    ("tiles", "words"),
    [(0, "the model takes images: give --max-tiles"), (128, "128 tiles of 256 tokens do not fit into --max-input-len")],
)
def test_tiles_are_tokens_of_the_prompt(tiles: int, words: str, tmp_path: Path) -> None:
    (found,) = problems(request(tmp_path, source(tmp_path, INTERNLM2_8B, INTERNVIT), "internvl2_5", max_tiles=tiles))
    assert words in found


@pytest.mark.parametrize(
    ("config", "method", "qformat", "words"),
    [
        (QWEN3_8B, "awq", "fp8", "quantised already (awq): leave --qformat out"),
        (QWEN3_8B, "bitsandbytes", "full_prec", "does not read bitsandbytes of qwen3"),
        (GEMMA3_4B, "awq", "full_prec", "does not read awq of gemma3_text"),
        (QWEN3_8B, "awq", "full_prec", None),
    ],
)
def test_quantised_checkpoints(config: dict, method: str, qformat: str, words: str | None, tmp_path: Path) -> None:
    read = source(tmp_path, config, quantization_config={"quant_method": method})
    found = problems(request(tmp_path, read, qformat=qformat))
    assert bool(found) == bool(words)
    assert not words or words in found[0]


def test_gemma_has_no_pipeline(tmp_path: Path) -> None:
    (found,) = problems(request(tmp_path, source(tmp_path, GEMMA3_4B), "gemma3", pp_size=2))
    assert "no pipeline parallelism for Gemma" in found


def test_incomplete_weights_are_named(tmp_path: Path) -> None:
    asked = request(tmp_path, source(tmp_path))
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (found,) = problems(asked)
    assert "is broken or not wholly downloaded" in found


def test_gpus_must_support_the_format(tmp_path: Path) -> None:
    read = source(tmp_path)
    fp8, plain = request(tmp_path, read, qformat="fp8"), request(tmp_path, read)
    assert on(fp8, tmp_path, H200) == on(fp8, tmp_path, L4) == on(plain, tmp_path, L4) == []
    (found,) = on(fp8, tmp_path, Gpu("A100", (8, 0), 80 * GIB))
    assert found.startswith("error fp8 over bfloat16, KV cache in fp8 needs compute capability 8.9; A100 has 8.0")
    assert "needs compute capability 8.0; V100 has 7.0" in on(plain, tmp_path, V100)[0]
    assert on(request(tmp_path, read, dtype="float16"), tmp_path, V100) == []
    (found,) = on(request(tmp_path, read, tp_size=2), tmp_path, H200)
    assert found.startswith("warning 1 here: the parts are built one after another, and 2 are to run it")


def test_the_machine_must_have_room(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("scripts.engine_build.source._text_bytes", lambda folder: 200 * GIB)
    asked = request(tmp_path, source(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 399 * GIB}))
    memory, disk = on(asked, tmp_path, H200)
    assert memory.startswith("error about 200.0 GiB of weights on each GPU")
    assert disk.startswith("error 399.0 GiB free")
    # Files of the unfinished build are used again.
    (asked.work).mkdir()
    with (asked.work / "checkpoint").open("wb") as file:
        file.truncate(GIB)
    assert on(asked, tmp_path, H200) == [memory]


def test_another_release_is_a_warning_and_none_an_error(tmp_path: Path) -> None:
    asked = request(tmp_path, source(tmp_path))
    (found,) = on(asked, tmp_path, H200, versions={"tensorrt_llm": "1.1.0"})
    assert found == "warning 1.1.0; the commands are written for 1.2.1"
    (found,) = on(asked, tmp_path, H200, versions={})
    assert found.startswith("error python3 has none")


def test_sizes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("scripts.engine_build.source._text_bytes", lambda folder: 16 * GIB)
    read = source(tmp_path)
    kept = 2 * 2 * 151936 * 4096
    sizes = {name: engine_bytes(request(tmp_path, read, qformat=name)) for name in ("full_prec", "fp8", "int4_awq")}
    assert sizes == {"full_prec": 16 * GIB, "fp8": 8 * GIB + kept, "int4_awq": 4 * GIB + kept}
    # Keys and values of 36 layers with 8 heads of 128 numbers.
    assert kv_bytes_per_token(request(tmp_path, read)) == 2 * 36 * 8 * 128 * 2
    assert kv_bytes_per_token(request(tmp_path, read, qformat="fp8", tp_size=2, pp_size=2)) == 2 * 18 * 4 * 128


def test_windows_are_those_of_the_layers(tmp_path: Path) -> None:
    by_pattern = request(tmp_path, source(tmp_path, GEMMA3_4B), "gemma3")
    assert parameters(by_pattern)["max_attention_window_size"] == "1024,1024,1024,1024,1024,65536"
    types = (["sliding_attention"] * 2 + ["full_attention"]) * 11 + ["sliding_attention"]
    read = Source.open(checkpoint(tmp_path / "typed", GEMMA3_4B | {"layer_types": types, "sliding_window": 512}))
    assert parameters(request(tmp_path, read, "gemma3"))["max_attention_window_size"] == "512,512,65536"
    qwen = Source.open(checkpoint(tmp_path / "qwen", QWEN3_8B | {"sliding_window": 4096}))
    assert parameters(request(tmp_path, qwen)) == {}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "internvl_chat"}, "`triton-chat prepare "),
        ({"model_type": "gemma3"}, "`triton-chat split "),
        (
            {"model_type": "mamba", "architectures": ["MambaForCausalLM"]},
            "is of MambaForCausalLM; engines are built from",
        ),
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "has no 'num_attention_heads'"),
    ],
)
def test_an_unsupported_checkpoint_is_explained(config: dict, words: str, tmp_path: Path) -> None:
    sizes = {"vocab_size": 10, "max_position_embeddings": 8, **TOKENS}
    with pytest.raises(EngineError, match=re.escape(words)):
        Source.open(checkpoint(tmp_path / "model", sizes | config))
    with pytest.raises(EngineError, match=r"has no config\.json"):
        Source.open(tmp_path)


def test_unexpected_output_of_nvidia_smi(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("scripts.shared.toolchain._QUERY", ("echo", "H200, [N/A], 1"))
    with pytest.raises(EngineError, match="answers otherwise than asked"):
        find_gpus()
    monkeypatch.setattr("scripts.shared.toolchain._QUERY", ("echo", "H200, 9.0, 143360"))
    assert find_gpus() == (H200,)
