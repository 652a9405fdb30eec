# SPDX-License-Identifier: Apache-2.0
"""Check in advance for problems that would fail a build or make its engine unusable, as a build may take hours."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from scripts.engine_build.formats import AWQ_BLOCK_SIZES, BFLOAT16_GPUS, UNQUANTISED
from scripts.engine_build.plan import Request, engine_bytes, kv_bytes_per_token, make_steps
from scripts.shared.findings import Finding, Verdict, check_result
from scripts.shared.toolchain import TENSORRT_LLM, Toolchain
from scripts.shared.weights import weights_problem

GIB = 2**30
# Quantisation methods of checkpoints that convert_checkpoint.py reads.
_READABLE = ("awq", "gptq")
# Above this TensorRT-LLM warns that there is no gain and that tensors may become too large.
_MANY_TOKENS = 16384


def inputs(request: Request) -> Iterator[Finding]:
    """Check the checkpoint and the options; a finding of `error` stops the build."""
    yield check_result("checkpoint", weights_problem(request.source.folder), f"{request.source.model_type}, complete")
    yield check_result("format", _format_problem(request), _format(request))
    yield check_result("parallel", _parallel_problem(request), f"{request.world_size} GPUs")
    yield from _lengths(request)


def machine(request: Request, tools: Toolchain) -> Iterator[Finding]:
    """Check the tools, GPUs and disk of this machine."""
    missing = tools.missing([step.script for step in make_steps(request, tools) if step.script])
    problem = f"run it inside the image, or give --examples; missing: {', '.join(missing)}"
    yield check_result("tools", problem if missing else None, str(tools.examples))
    yield _version(tools)
    yield from _gpus(request, tools)
    yield _disk(request)


def _format(request: Request) -> str:
    if request.source.quantised:
        return f"{request.source.quantised}, as the checkpoint has it"
    kv_cache = request.format.kv_cache or request.preset.dtype
    return f"{request.qformat} over {request.preset.dtype}, KV cache in {kv_cache}"


def _format_problem(request: Request) -> str | None:
    source = request.source
    if source.quantised:
        if request.qformat != UNQUANTISED:
            return f"the checkpoint is quantised already ({source.quantised}): leave --qformat out."
        if source.quantised not in _READABLE or source.converter == "gemma":
            return f"TensorRT-LLM's converter does not read {source.quantised} of {source.model_type}."
        return None
    if request.qformat == "int4_awq":
        if request.awq_block_size not in AWQ_BLOCK_SIZES:
            return f"--awq-block-size must be one of {AWQ_BLOCK_SIZES}, not {request.awq_block_size}."
        block = request.awq_block_size * request.preset.tp_size
        uneven = [size for size in (source.hidden_size, source.intermediate_size) if size % block]
        if uneven:
            return f"blocks of {request.awq_block_size} on {request.preset.tp_size} GPUs do not divide {uneven}."
    dataset = request.calib_dataset
    if dataset and dataset.startswith(("/", ".", "~")) and not Path(dataset).is_dir():
        return f"there is no --calib-dataset {dataset}."
    return None


def _parallel_problem(request: Request) -> str | None:
    source, preset = request.source, request.preset
    if min(preset.tp_size, preset.pp_size) < 1 or preset.pp_size > source.layers:
        return f"--pp-size must be 1 to {source.layers}, the layers, and --tp-size at least 1."
    if source.heads % preset.tp_size or (source.kv_heads % preset.tp_size and preset.tp_size % source.kv_heads):
        return f"--tp-size {preset.tp_size} does not share out {source.heads} heads and {source.kv_heads} KV heads."
    if preset.pp_size > 1 and source.converter == "gemma":
        return "TensorRT-LLM has no pipeline parallelism for Gemma: --pp-size 1."
    return None


def _lengths(request: Request) -> Iterator[Finding]:
    source, preset = request.source, request.preset
    summary = f"{preset.max_input_len} of {preset.max_seq_len} tokens for the prompt, {preset.max_batch_size} requests"
    yield check_result("lengths", _lengths_problem(request), summary)
    if preset.max_seq_len > source.positions:
        beyond = f"--max-seq-len {preset.max_seq_len} is past the {source.positions} positions of the checkpoint"
        yield Finding("positions", "warning", f"{beyond}: what comes after them is not what it was trained for")
    if preset.max_num_tokens < preset.max_input_len:
        chunked = "prompts above it need enable_chunked_context when serving, which the config trtllm has"
        yield Finding("max_num_tokens", "warning", f"{preset.max_num_tokens} is below --max-input-len: {chunked}")
    if preset.max_num_tokens > _MANY_TOKENS:
        text = f"{preset.max_num_tokens} costs memory; TensorRT-LLM expects no gain above {_MANY_TOKENS}"
        yield Finding("max_num_tokens", "warning", text)


def _lengths_problem(request: Request) -> str | None:
    source, preset = request.source, request.preset
    if min(preset.max_batch_size, preset.max_input_len, preset.max_num_tokens) < 1:
        return "sizes and lengths must be at least 1."
    if preset.max_input_len >= preset.max_seq_len:
        return f"--max-seq-len {preset.max_seq_len} leaves no answer after --max-input-len {preset.max_input_len}."
    if preset.max_num_tokens > preset.max_batch_size * preset.max_seq_len:
        return f"--max-num-tokens {preset.max_num_tokens} is more than all requests can hold together."
    if preset.max_tiles and not source.tile_tokens:
        return f"--max-tiles {preset.max_tiles}, but '{source.folder}' has no vision part for tiles: --max-tiles 0."
    if source.tile_tokens and not preset.max_tiles:
        return "the model takes images: give --max-tiles, the tiles of one request."
    if preset.max_tiles * source.tile_tokens >= preset.max_input_len:
        rows = f"{preset.max_tiles} tiles of {source.tile_tokens} tokens"
        return f"{rows} do not fit into --max-input-len {preset.max_input_len}."
    return None


def _version(tools: Toolchain) -> Finding:
    found = tools.versions.get("tensorrt_llm")
    if found is None:
        return Finding("tensorrt_llm", "error", f"python3 has none: build inside the image (release {TENSORRT_LLM})")
    other = f"{found}; the commands are written for {TENSORRT_LLM}"
    return check_result("tensorrt_llm", other if found != TENSORRT_LLM else None, found, "warning")


def _gpus(request: Request, tools: Toolchain) -> Iterator[Finding]:
    share = engine_bytes(request) // request.world_size
    summary = f"about {share / GIB:.1f} GiB of weights on each GPU, {_kv_cache(request)}"
    if not tools.gpus:
        yield Finding("gpu", "error", "nvidia-smi finds none, and an engine is built on the kind that runs it")
        yield Finding("memory", "ok", summary)
        return
    needed = max(request.format.gpus, BFLOAT16_GPUS if request.preset.dtype == "bfloat16" else (0, 0))
    required = f"{_format(request)} needs compute capability {'.'.join(map(str, needed))}"
    for gpu in tools.gpus:
        weak = f"{required}; {gpu.name} has {gpu.capability}" if gpu.compute < needed else None
        yield check_result("gpu", weak, f"{gpu.name}, {gpu.memory / GIB:.0f} GiB")
    if len(tools.gpus) < request.world_size:
        few = f"{len(tools.gpus)} here: the parts are built one after another, and {request.world_size} are to run it"
        yield Finding("gpu", "warning", few)
    least = min(gpu.memory for gpu in tools.gpus)
    full = f"{summary}; the smallest has {least / GIB:.0f} GiB: more GPUs (--tp-size) or a smaller --qformat"
    yield check_result("memory", full if share > least else None, summary)


def _kv_cache(request: Request) -> str:
    token = kv_bytes_per_token(request)
    tokens = request.preset.max_batch_size * request.preset.max_seq_len
    longest = f"{token * tokens / GIB:.0f} GiB with all requests at their longest"
    return f"{token / 1024:.0f} KiB of KV cache a token ({longest})"


def _disk(request: Request) -> Finding:
    place = next(folder for folder in request.output.absolute().parents if folder.is_dir())
    # Files of an unfinished build count as free: they are used, or written again.
    ours = sum(file.stat().st_size for file in request.work.rglob("*") if file.is_file())
    free, needed = shutil.disk_usage(place).free + ours, 2 * engine_bytes(request)
    space = f"about {needed / GIB:.1f} GiB needed, for TensorRT-LLM's checkpoint and the engine"
    summary = f"{free / GIB:.1f} GiB free at {place}, {space}"
    return check_result("disk", summary if free < needed else None, summary)


def softened(found: Finding) -> Finding:
    """Turn an error into a warning, for a dry run on another machine than the building one."""
    verdict: Verdict = "warning" if found.verdict == "error" else found.verdict
    return Finding(found.subject, verdict, found.text)
