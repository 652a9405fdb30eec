# SPDX-License-Identifier: Apache-2.0
"""`triton-chat build engine` with fake tools that take only the flags that TensorRT-LLM documents."""

import json
import shlex
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from scripts.cli.main import main
from scripts.shared.manifest import NAME, read
from tests.support.engine_models import GEMMA3_4B, INTERNLM2_8B, INTERNVIT, QWEN2_7B, QWEN3_8B, checkpoint, fake_image

MODELS = {
    "qwen3": (QWEN3_8B, None),
    "qwen2": (QWEN2_7B, None),
    "internvl": (INTERNLM2_8B, INTERNVIT),
    "gemma3": (GEMMA3_4B, None),
    "awq": (QWEN3_8B | {"quantization_config": {"quant_method": "awq", "group_size": 128}}, None),
}
SEEDS_BUILD = "--kv_cache_type paged --use_paged_context_fmha enable"
# The commands of grps-trtllm's documents, flag by flag, without those that are defaults now or no longer exist.
CASES = {
    "qwen3": (
        "qwen3",
        "",
        "qwen/convert_checkpoint.py --model_dir M --output_dir C --dtype bfloat16 --load_model_on_cpu",
        f"--gemm_plugin bfloat16 --max_batch_size 16 {SEEDS_BUILD} --max_input_len 32256 --max_seq_len 32768 --max_num_tokens 32256",
    ),
    "int8 weights": (
        "qwen3",
        "--qformat int8_wo",
        "quantization/quantize.py --model_dir M --dtype bfloat16 --qformat int8_wo --output_dir C",
        "",
    ),
    "awq": (
        "qwen3",
        "--qformat int4_awq --awq-block-size 64",
        "quantization/quantize.py --model_dir M --dtype bfloat16 --qformat int4_awq --awq_block_size 64 --output_dir C",
        "",
    ),
    "ready awq": (
        "awq",
        "",
        "qwen/convert_checkpoint.py --model_dir M --output_dir C --dtype bfloat16 --load_model_on_cpu",
        "",
    ),
    "fp8": (
        "qwen3",
        "--qformat fp8 --calib-dataset some/texts",
        "quantization/quantize.py --model_dir M --dtype bfloat16 --qformat fp8 --kv_cache_dtype fp8 --calib_dataset some/texts --output_dir C",
        "",
    ),
    "smooth": (
        "qwen3",
        "--qformat int8_sq",
        "quantization/quantize.py --model_dir M --dtype bfloat16 --qformat int8_sq --kv_cache_dtype int8 --output_dir C",
        "",
    ),
    "four gpus": (
        "qwen2",
        "--preset qwen2-4gpu",
        "qwen/convert_checkpoint.py --model_dir M --output_dir C --dtype float16 --tp_size 4",
        "--gemm_plugin float16 --max_batch_size 16 --kv_cache_type paged --max_input_len 2048 --max_seq_len 2560 --workers 4",
    ),
    "images": (
        "internvl",
        "",
        "llama/convert_checkpoint.py --model_dir M --output_dir C --dtype bfloat16",
        "--gemm_plugin bfloat16 --max_batch_size 2 --kv_cache_type paged --max_input_len 32768 --max_seq_len 36960 "
        "--max_num_tokens 32768 --max_multimodal_len 13312",
    ),
    "gemma3": (
        "gemma3",
        "",
        "gemma/convert_checkpoint.py --ckpt-type hf --dtype bfloat16 --load_model_on_cpu --model-dir M --output-model-dir C --world-size 1",
        f"--gemm_plugin bfloat16 --max_batch_size 16 {SEEDS_BUILD} --max_input_len 64512 --max_seq_len 65536 --max_num_tokens 64512",
    ),
    "gemma3 int8": (
        "gemma3",
        "--qformat int8_wo",
        "gemma/convert_checkpoint.py --use_weight_only --weight_only_precision int8 --model-dir M",
        "",
    ),
    "gemma3 fp8 on two": (
        "gemma3",
        "--qformat fp8 --tp-size 2",
        "quantization/quantize.py --qformat fp8 --kv_cache_dtype fp8 --tp_size 2",
        "",
    ),
    "pipeline": (
        "qwen3",
        "--pp-size 2 --tp-size 2",
        "qwen/convert_checkpoint.py --tp_size 2 --pp_size 2",
        "--workers 4",
    ),
}


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    return {name: checkpoint(tmp_path / name, *parts) for name, parts in MODELS.items()}


@pytest.fixture
def image(tmp_path: Path, monkeypatch) -> Path:
    return fake_image(tmp_path / "image", monkeypatch)


def build(model: Path, output: Path, examples: Path, options: str = "") -> int:
    return main(["build", "engine", str(model), "--output", str(output), "--examples", str(examples), *options.split()])


def flags(words: list[str]) -> set[tuple[str, ...]]:
    """Flags with their values."""
    starts = [at for at, word in enumerate(words) if word.startswith("--")]
    return {tuple(words[at:end]) for at, end in pairwise([*starts, len(words)])}


@pytest.mark.parametrize("case", CASES)
def test_the_documented_commands_are_run(case: str, models, image: Path, tmp_path: Path) -> None:
    name, options, first, second = CASES[case]
    output = tmp_path / "engine"
    assert build(models[name], output, image, options) == 0
    manifest = read(output)
    convert, engine = manifest.commands
    named = {"M": str(models[name]), "C": f"{output}.work/checkpoint"}
    script, *wanted = [named.get(word, word) for word in first.split()]
    assert convert[1].endswith(f"/{script}")
    assert flags(wanted) <= flags(convert)
    assert engine[0] == "trtllm-build"
    assert flags(second.split()) <= flags(engine)
    # The flag of a quantised cache is there only for formats that have one.
    assert ("--kv_cache_dtype" in convert) == ("--qformat fp8" in first or "int8_sq" in first)
    assert ("--max_multimodal_len" in engine) == (name == "internvl")


def test_the_engine_is_complete_and_its_manifest_says_how_it_was_made(
    models, image: Path, tmp_path: Path, capsys
) -> None:
    output = tmp_path / "engines" / "gemma"
    assert build(models["gemma3"], output, image, "--qformat fp8 --tp-size 2") == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert sorted(path.name for path in output.iterdir()) == ["config.json", "rank0.engine", "rank1.engine", NAME]
    assert [path.name for path in output.parent.iterdir()] == ["gemma"]
    manifest = read(output)
    assert (manifest.qformat, manifest.world_size, manifest.compute) == ("fp8", 2, "9.0")
    assert manifest.versions == {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}
    assert manifest.parameters == {
        "max_attention_window_size": "1024,1024,1024,1024,1024,65536",
        "enable_kv_cache_reuse": "false",
    }
    assert manifest.files == {"config.json": 40, "rank0.engine": 10, "rank1.engine": 20}
    assert manifest.sizes["max_batch_size"] == 16


def test_a_dry_run_prints_what_would_be_run(models, tmp_path: Path, monkeypatch, capsys) -> None:
    # On a machine without GPUs and tools.
    monkeypatch.setattr("scripts.shared.toolchain._QUERY", ("no-such-program",))
    assert build(models["internvl"], tmp_path / "engine", tmp_path, "--dry-run") == 0
    output = capsys.readouterr()
    convert, engine = map(shlex.split, output.out.splitlines())
    assert (convert[0], engine[0]) == ("python3", "trtllm-build")
    assert ("--max_multimodal_len", "13312") in flags(engine)
    for words in ("warning  tools", "warning  tensorrt_llm", "warning  gpu", "warning  positions"):
        assert words in output.err
    assert "128 KiB of KV cache a token" in output.err
    assert not list(tmp_path.glob("engine*"))


def test_a_failed_build_is_resumed(models, image: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    output = tmp_path / "engine"
    monkeypatch.setenv("FAKE_TRTLLM", "fail trtllm-build")
    assert build(models["qwen3"], output, image) == 1
    printed = capsys.readouterr().err
    assert "CUDA out of memory" in printed
    assert f"build failed (exit status 1); its log is {output}.work/build.log." in printed
    assert not output.exists()
    converted = tmp_path / "engine.work" / "checkpoint" / "rank0.safetensors"
    first = converted.stat().st_mtime_ns

    monkeypatch.setenv("FAKE_TRTLLM", "fail convert_checkpoint.py")  # It must not be run again.
    assert build(models["qwen3"], output, image, "--max-batch-size 8 --keep-checkpoint") == 0
    assert "convert: done before" in capsys.readouterr().err
    assert converted.stat().st_mtime_ns == first
    assert read(output).sizes["max_batch_size"] == 8


@pytest.mark.parametrize("change", ["options", "checkpoint", "files"])
def test_files_made_from_other_input_are_made_again(
    change: str, models, image: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("FAKE_TRTLLM", "fail trtllm-build")
    assert build(models["qwen3"], tmp_path / "engine", image) == 1
    monkeypatch.delenv("FAKE_TRTLLM")
    match change:
        case "checkpoint":
            (models["qwen3"] / "tokenizer.json").write_text('{"version": "2"}')
        case "files":
            (tmp_path / "engine.work" / "checkpoint" / "config.json").unlink()
    assert build(models["qwen3"], tmp_path / "engine", image, "--dtype float16" if change == "options" else "") == 0
    assert "done before" not in capsys.readouterr().err


def test_a_tool_that_writes_nothing_has_failed(models, image: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("FAKE_TRTLLM", "lose quantize.py")
    assert build(models["qwen3"], tmp_path / "engine", image, "--qformat fp8") == 1
    assert "quantise wrote no config.json, rank0.safetensors" in capsys.readouterr().err


def test_an_interrupt_leaves_no_tool_behind(models, image: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("FAKE_TRTLLM", "hang trtllm-build")
    line = ["build", "engine", str(models["qwen3"]), "--output", str(tmp_path / "engine"), "--examples", str(image)]
    process = subprocess.Popen([sys.executable, "-m", "scripts.cli", *line], stderr=subprocess.DEVNULL)
    log = tmp_path / "engine.work" / "build.log"
    deadline = time.monotonic() + 60
    while not (log.is_file() and "at work" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Two at once would write into one folder.
    assert build(models["qwen3"], tmp_path / "engine", image) == 1
    process.send_signal(2)
    assert process.wait(30) == 130
    lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    assert not any(str(tmp_path / "engine.work") in line for line in lines)


def test_an_engine_is_replaced_only_with_force(models, image: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "engine").mkdir()
    assert build(models["qwen3"], tmp_path / "engine", image) == 1
    assert "engine' exists: --force replaces it." in capsys.readouterr().err
    assert build(models["qwen3"], tmp_path / "engine", image, "--force") == 0
    assert json.loads((tmp_path / "engine" / NAME).read_text())["format"] == 1
