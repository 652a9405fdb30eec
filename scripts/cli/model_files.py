# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the model: whether the checkpoint is complete, how it is read, and whether it fits."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from common.chat.template import is_text
from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.served_model import CHAT
from preprocessing.engine_traits import TRTLLM
from scripts.cache import MARKER, cache_dir
from scripts.cli.pictures import picture_findings
from scripts.launcher.checks import FORMATS, check_memory, format_problem, format_value, memory_environment
from scripts.launcher.embedding import wanted_kind
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import PREPARED, ServedModel, served
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import engine_name
from scripts.shared.findings import Finding, check_result
from scripts.shared.weights import weights_problem

if TYPE_CHECKING:
    from families.recognition import Recognition

_SUBJECTS = {"chat_template": "chat template", "tool_call_parser": "tool calls", "reasoning_parser": "reasoning"}


def model_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the model: all of a folder, but of a model that `serve` would fetch first only that."""
    problems = list(_option_problems(options, environment))
    yield from problems
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
        model = served(folder, folder.name, wanted_kind(options))
    except LaunchError as error:
        yield Finding("model", "error", str(error))
        return
    yield Finding("model", "ok", f"{folder}: {model.checkpoint.model_type}")
    if not problems and model.kind == CHAT:
        yield from _formats(model.checkpoint, options, {**environment, **options.settings})
    # An engine of TensorRT-LLM contains the weights.
    built = engine_name(options, environment) == TRTLLM
    if not built:
        yield check_result("weights", weights_problem(folder), "complete")
    if model.kind == CHAT:
        yield from picture_findings(folder, options, {**environment, **options.settings})
    if not built:
        yield check_result(
            "fits", _memory_problem(model, options, environment), f"{model.weight_bytes / 2**30:.1f} GiB of weights"
        )


def _option_problems(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with the options that replace the checkpoint's chat template and the family's parsers."""
    for name in FORMATS:
        if problem := format_problem(name, {**environment, **options.settings}):
            yield Finding(_SUBJECTS[name], "error", problem)


def _formats(checkpoint: Checkpoint, options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """How prompts are written and answers read, and what decided it."""
    template = format_value("chat_template", environment)
    if template is not None:
        yield Finding(
            "chat template", "ok", f"{len(template)} characters given as text" if is_text(template) else template
        )
    try:
        found = _recognise(checkpoint, template, options.styler or environment.get("TRITON_CHAT_STYLER"), environment)
    except ImportError as error:
        yield Finding("family", "warning", f"unknown: the package {error.name} is missing")
        return
    except (ValueError, RequestError) as error:
        yield Finding("tokenizer", "error", str(error))
        return
    yield Finding("family", "ok", found.family)
    yield Finding("reasoning", "ok", found.reasoning)
    yield Finding("tool calls", "ok", found.tools)
    for warning in found.warnings:
        yield Finding("formats", "warning", warning)


def _recognise(
    checkpoint: Checkpoint, template: str | None, name: str | None, environment: Mapping[str, str]
) -> "Recognition":
    # Imported here because they import transformers, which takes seconds and may be missing.
    from common.tokenizer import ChatTokenizer
    from families.detection import find_styler
    from families.recognition import recognise

    tokenizer = ChatTokenizer.load(checkpoint.path, template)
    styler = find_styler(
        checkpoint,
        name,
        tool_parser=format_value("tool_call_parser", environment),
        reasoning_parser=format_value("reasoning_parser", environment),
    )
    return recognise(styler, tokenizer, styler.answer_format(tokenizer), styler_given=bool(name))


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


def _memory_problem(model: ServedModel, options: LaunchOptions, environment: Mapping[str, str]) -> str | None:
    try:
        check_memory(model, memory_environment(options, environment))
    except LaunchError as error:
        return str(error)
    return None
