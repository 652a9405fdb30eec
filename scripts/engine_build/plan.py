# SPDX-License-Identifier: Apache-2.0
"""The plan of a build: two commands with their flags and output files."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.engine_build.formats import FORMATS, UNQUANTISED, Format
from scripts.engine_build.presets import Preset
from scripts.engine_build.source import Source
from scripts.shared.toolchain import BUILD, PYTHON, QUANTIZE, Toolchain

CHECKPOINT_FILES, ENGINE_FILES = "rank{}.safetensors", "rank{}.engine"


@dataclass(frozen=True, slots=True)
class Request:
    """The engine to build. output: its folder, which appears only when it is complete.

    qformat: key of FORMATS. calib_dataset: folder or hub id of texts; None leaves it to NVIDIA's tool.
    """

    source: Source
    output: Path
    preset: Preset
    qformat: str = UNQUANTISED
    awq_block_size: int = 128
    calib_dataset: str | None = None

    @property
    def format(self) -> Format:
        """The number format of weights and KV cache."""
        return FORMATS[self.qformat]

    @property
    def world_size(self) -> int:
        """GPUs that the engine runs on, one process each."""
        return self.preset.tp_size * self.preset.pp_size

    @property
    def max_multimodal_len(self) -> int:
        """Rows of the prompt embedding tables of all requests that run together."""
        return self.preset.max_batch_size * self.preset.max_tiles * self.source.tile_tokens

    @property
    def work(self) -> Path:
        """Folder for unfinished files, beside the output."""
        return self.output.with_name(f"{self.output.name}.work")


@dataclass(frozen=True, slots=True)
class Step:
    """One command. script: in NVIDIA's examples, or None for a program. writes: folder for the output `files`."""

    name: str
    command: tuple[str, ...]
    script: Path | None
    writes: Path
    files: tuple[str, ...]


def make_steps(request: Request, tools: Toolchain) -> list[Step]:
    """Make the two steps: checkpoint to TensorRT-LLM checkpoint, and that to an engine."""
    checkpoint, engine = request.work / "checkpoint", request.work / "engine"
    first = _convert if converts(request) else _quantise
    name, script, arguments = first(request, tools, checkpoint)
    ranks = range(request.world_size)
    return [
        Step(
            name,
            (PYTHON, str(script), *arguments),
            script,
            checkpoint,
            ("config.json", *(CHECKPOINT_FILES.format(rank) for rank in ranks)),
        ),
        Step(
            "build",
            (BUILD, *_build(request, checkpoint, engine)),
            None,
            engine,
            ("config.json", *(ENGINE_FILES.format(rank) for rank in ranks)),
        ),
    ]


def converts(request: Request) -> bool:
    """Whether the first step is convert_checkpoint.py; quantize.py supports Gemma only in calibrated formats."""
    return request.qformat == UNQUANTISED or (request.source.converter == "gemma" and not request.format.calibrated)


def parameters(request: Request) -> dict[str, str]:
    """Parameters that the config of the `tensorrt_llm` model must have for this engine."""
    if not request.source.windows:
        return {}
    windows = ",".join(str(window or request.preset.max_seq_len) for window in request.source.windows)
    # Blocks outside a window cannot be reused by another request.
    return {"max_attention_window_size": windows, "enable_kv_cache_reuse": "false"}


def engine_bytes(request: Request) -> int:
    """Estimate the size of the engine's weights on all GPUs together."""
    source = request.source
    if source.quantised:
        return source.weight_bytes
    sixteen = source.weight_bytes * 16 // source.bits
    if request.qformat == UNQUANTISED:
        return sixteen
    # Embedding and head; a tied head is stored separately in an engine.
    kept = 2 * source.vocab_size * source.hidden_size * 2
    return min(sixteen, sixteen * request.format.weight_bits // 16 + kept)


def kv_bytes_per_token(request: Request) -> int:
    """KV cache bytes per token on each GPU, without regard to attention windows."""
    source, preset = request.source, request.preset
    bits = 8 if request.format.kv_cache else 16
    heads, layers = math.ceil(source.kv_heads / preset.tp_size), math.ceil(source.layers / preset.pp_size)
    return 2 * layers * heads * source.head_size * bits // 8


def _convert(request: Request, tools: Toolchain, target: Path) -> tuple[str, Path, Iterator[str]]:
    flags = _gemma_flags if request.source.converter == "gemma" else _common_flags
    return "convert", tools.converter(request.source.converter), flags(request, target)


def _common_flags(request: Request, target: Path) -> Iterator[str]:
    preset = request.preset
    yield from ("--model_dir", str(request.source.folder), "--output_dir", str(target), "--dtype", preset.dtype)
    yield from ("--tp_size", str(preset.tp_size), "--pp_size", str(preset.pp_size), "--load_model_on_cpu")


def _gemma_flags(request: Request, target: Path) -> Iterator[str]:
    preset = request.preset
    yield from ("--ckpt-type", "hf", "--model-dir", str(request.source.folder), "--output-model-dir", str(target))
    yield from ("--dtype", preset.dtype, "--world-size", str(preset.tp_size), "--load_model_on_cpu")
    if request.qformat != UNQUANTISED:
        yield from ("--use_weight_only", "--weight_only_precision", f"int{request.format.weight_bits}")


def _quantise(request: Request, tools: Toolchain, target: Path) -> tuple[str, Path, Iterator[str]]:
    return "quantise", tools.examples / QUANTIZE, _quantise_flags(request, target)


def _quantise_flags(request: Request, target: Path) -> Iterator[str]:
    preset = request.preset
    yield from ("--model_dir", str(request.source.folder), "--output_dir", str(target), "--dtype", preset.dtype)
    yield from ("--qformat", request.qformat)
    if request.format.kv_cache:
        yield from ("--kv_cache_dtype", request.format.kv_cache)
    if "awq" in request.qformat:
        yield from ("--awq_block_size", str(request.awq_block_size))
    if request.format.calibrated and request.calib_dataset:
        yield from ("--calib_dataset", request.calib_dataset)
    yield from ("--tp_size", str(preset.tp_size), "--pp_size", str(preset.pp_size))


def _build(request: Request, checkpoint: Path, engine: Path) -> Iterator[str]:
    preset = request.preset
    yield from ("--checkpoint_dir", str(checkpoint), "--output_dir", str(engine), "--gemm_plugin", preset.dtype)
    # `--paged_kv_cache enable`, as in older documents, now only prints a warning.
    yield from ("--kv_cache_type", "paged", "--remove_input_padding", "enable")
    # Both are required for KV reuse and chunked context.
    yield from ("--context_fmha", "enable", "--use_paged_context_fmha", "enable")
    for size in ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens"):
        yield from (f"--{size}", str(getattr(preset, size)))
    if request.max_multimodal_len:
        yield from ("--max_multimodal_len", str(request.max_multimodal_len))
    # trtllm-build uses fewer if there are fewer GPUs.
    yield from ("--workers", str(request.world_size))
