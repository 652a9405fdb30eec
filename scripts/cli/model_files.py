# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the model: whether the checkpoint is complete and fits into memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from common.chat.template import is_text
from preprocessing.engine_traits import TRTLLM
from scripts.cache import MARKER, cache_dir
from scripts.launcher.checks import FORMATS, check_memory, format_problem, format_value
from scripts.launcher.environment import CPU_KV_CACHE_GIB
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import PREPARED, SPLIT_FIRST, ServedModel, served
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import engine_name
from scripts.shared.findings import Finding, check_result
from scripts.shared.weights import weights_problem

# Files in vision/ that the runtimes other than torch read.
_RUNTIME_FILES = {
    "onnxruntime": ("model.onnx", "`triton-chat build vit` writes it"),
    "tensorrt": ("model.plan", "`triton-chat build vit --plan` writes it"),
}

_SUBJECTS = {"chat_template": "chat template", "tool_call_parser": "tool parser", "reasoning_parser": "reasoning"}


def model_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the model: all of a folder, but of a model that `serve` would fetch first only that."""
    folder = Path(options.model).expanduser()
    if not folder.is_dir():
        prepared = PREPARED.get(options.model)
        if prepared is None:
            yield _hub(options.model)
            return
        folder = cache_dir() / "models" / prepared.name
        if not (folder / MARKER).is_file():
            advice = (
                f"'{options.model}' is prepared at the first start; `triton-chat prepare {options.model}` does it now"
            )
            yield Finding("model", "ok", advice)
            return
    try:
        model = served(folder, folder.name)
    except LaunchError as error:
        yield Finding("model", "error", str(error))
        return
    yield Finding("model", "ok", f"{folder}: {model.checkpoint.model_type}")
    # An engine of TensorRT-LLM contains the weights.
    built = engine_name(options, environment) == TRTLLM
    if not built:
        yield check_result("weights", weights_problem(folder), "complete")
    yield from _vision(folder, model.checkpoint.model_type, {**environment, **options.settings})
    if not built:
        yield check_result(
            "fits", _memory_problem(model, environment), f"{model.weight_bytes / 2**30:.1f} GiB of weights"
        )


def format_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the options that replace the checkpoint's chat template and the family's parsers."""
    environment = {**environment, **options.settings}
    for name in FORMATS:
        value = format_value(name, environment)
        if value is None:
            shown = "as the checkpoint says"
        elif is_text(value):
            shown = f"{len(value)} characters given as text"
        else:
            shown = value
        yield check_result(_SUBJECTS[name], format_problem(name, environment), shown)


def _hub(model: str) -> Finding:
    folder = Path(model).expanduser()
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        return Finding(
            "model",
            "error",
            f"there is no folder {folder}. Give a checkpoint folder, a hub id, {' or '.join(PREPARED)}.",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        cached = snapshot_download(model, local_files_only=True)  # nosec B615 # only looks into the cache
    except HFValidationError:
        return Finding("model", "error", f"'{model}' is neither a folder here nor a hub id.")
    except LocalEntryNotFoundError:
        return Finding("model", "warning", f"'{model}' is not here yet: `triton-chat prepare {model}` downloads it")
    return Finding("model", "ok", f"'{model}' was downloaded to {cached}")


def _vision(folder: Path, model_type: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    vision = folder / "vision"
    if not vision.is_dir():
        split = f"the checkpoint is split at the first start; `triton-chat prepare {folder}` does it now"
        text = split if model_type in SPLIT_FIRST else "no part of its own: text, or in the engine"
        yield Finding("vision", "ok", text)
        return
    if not (vision / "config.json").is_file():
        yield Finding("vision", "error", f"'{vision}' has no config.json. Split the checkpoint again.")
        return
    yield check_result("vision", weights_problem(vision), "complete")
    runtime = settings.get("TRITON_CHAT_VIT_RUNTIME", "torch")
    if runtime in _RUNTIME_FILES:
        name, advice = _RUNTIME_FILES[runtime]
        file = Path(settings.get("TRITON_CHAT_VIT_ENGINE") or vision / name)
        problem = None if file.is_file() else f"the runtime {runtime} needs {file}: {advice}."
        yield check_result("vit engine", problem, str(file))


def _memory_problem(model: ServedModel, environment: Mapping[str, str]) -> str | None:
    try:
        check_memory(model, {"VLLM_CPU_KVCACHE_SPACE": CPU_KV_CACHE_GIB, **environment})
    except LaunchError as error:
        return str(error)
    return None
