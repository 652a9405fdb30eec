# SPDX-License-Identifier: Apache-2.0
"""Checks before anything is started."""

import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import psutil

from common.chat.template import load_template
from common.checkpoint import read_json
from common.command_line import did_you_mean, flag_of
from common.model_names import ENSEMBLE
from common.served_model import CHAT, EMBEDDING
from families.parsers.formats import AUTO, resolve_reasoning_format, resolve_tool_format
from families.stylers import NAMES as STYLERS
from frontend.auth.authenticator import Authenticator
from frontend.images.files import check_image_dirs
from frontend.serving.response_store import ResponseStore
from frontend.settings import ENV_PREFIX, Settings, SettingsError
from frontend.tls import check_certificate
from preprocessing.engine_traits import LLMAPI, TRTLLM
from scripts.launcher.adapters import OWN as ADAPTER_OPTIONS
from scripts.launcher.engine_options import check_engine, check_installed, check_other_options
from scripts.launcher.environment import CPU_KV_CACHE_GIB, TritonServer, has_gpu
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import ServedModel
from scripts.launcher.model_settings import MODEL_SETTINGS, check_model_settings
from scripts.launcher.options import LaunchOptions, own_flags
from scripts.launcher.trtllm_config import engine_name
from scripts.launcher.vllm_options import check_vllm_options
from scripts.setup.check_packages import numpy_problem
from scripts.setup.interpreter import libpython_problem

GIB = 2**30
# Files with a container's memory limit and use: cgroup version 2, then version 1.
_CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
# In the file beside them: the cached pages of files that the kernel drops first. Of version 1 the sum with all groups
# below, which `usage_in_bytes` counts too.
_CGROUP_STATISTICS, _DROPPABLE = "memory.stat", ("total_inactive_file", "inactive_file")

# Files that a process may have open: a connection is one. tritonserver has 70 under a small load. More than the second
# number would only slow down programs that close all that they might have.
LEAST_FILES, MOST_FILES = 256, 65536
_VLLM = "vllm"
# The engines by name: those of engines/registry.py, which imports more, and NVIDIA's C++ backend.
ENGINES = (_VLLM, LLMAPI, TRTLLM)
# vLLM then serves more than the checkpoint was made for.
_LONGER = "VLLM_ALLOW_LONG_MAX_MODEL_LEN"

# Options that say how prompts are written and answers are read -> what raises ValueError if the value is wrong.
FORMATS: Mapping[str, Callable[[str], str]] = {
    "chat_template": load_template,
    "tool_call_parser": resolve_tool_format,
    "reasoning_parser": resolve_reasoning_format,
}


def check_server(server: TritonServer, options: LaunchOptions) -> None:
    """Check that this Python and this repository can be used with the tritonserver; raises LaunchError."""
    repository = options.model_repository
    if not any((repository / model / "config.pbtxt").is_file() for model in (ENSEMBLE, EMBEDDING)):
        raise LaunchError(f"--model-repository {repository} has no model '{ENSEMBLE}'.")
    problems = (libpython_problem(), numpy_problem()) if server.embedded else ()
    for problem in filter(None, problems):
        raise LaunchError(problem)
    if server.embedded:
        try:
            check_installed(options.engine_name or "", repository)
        except ValueError as error:
            raise LaunchError(f"{error}.") from error


def raise_open_files() -> None:
    """Let this process and its children open as many files as they may; raises LaunchError if that is too few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if most < LEAST_FILES:
        raise LaunchError(
            f"a process may open only {most} files here, and {LEAST_FILES} are the least; each connection is one.",
            "Raise the limit: `ulimit -n` in a shell, LimitNOFILE in systemd, --ulimit nofile in Docker.",
        )
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def check_settings(environment: Mapping[str, str]) -> None:
    """Check the frontend's settings as the frontend itself does; raises LaunchError."""
    try:
        settings = Settings.load([], environment)
        Authenticator(settings)
        ResponseStore.check(settings)
        check_certificate(settings)
        check_image_dirs(settings)
    except SettingsError as error:
        raise LaunchError(f"{error}.") from error


def check_options(options: LaunchOptions, environment: Mapping[str, str]) -> None:
    """Check the names and values of the options of models and engine, before anything is read; raises LaunchError.

    Those of several models are checked with their entries.
    """
    engine = engine_name(options, environment)
    if engine not in ENGINES and ":" not in engine:
        raise _wrong(f"--engine {engine} is unknown", engine, ENGINES, ", module:Class")
    styler = options.styler or environment.get("TRITON_CHAT_STYLER")
    if styler and styler not in STYLERS:
        raise _wrong(f"--styler {styler} is unknown", styler, STYLERS)
    try:
        if ":" in engine:
            check_engine(engine, options.model_repository)
        if engine != TRTLLM and not options.several:
            check_engine_options(options.engine, engine, options.model_repository)
        check_engine_clients(options, engine)
        check_model_settings(environment)
    except ValueError as error:
        raise LaunchError(str(error) if str(error).endswith("?") else f"{error}.") from error


def check_engine_clients(options: LaunchOptions, engine: str) -> None:
    """Check that several processes can share the engine; raises ValueError. engine: its name."""
    clients = options.engine_clients
    if clients is None or clients == 1:
        return
    for problem, cause in (
        ("only vLLM's engine core takes several clients", engine != _VLLM or options.kind == EMBEDDING),
        ("adapters that change need one (--allowed-lora-path)", bool(options.engine.get("allowed_lora_path"))),
        ("a named config says it itself (--model-config-name)", bool(options.model_config_name)),
        ("with data parallelism there is one", options.engine.get("data_parallel_size", 1) != 1),
    ):
        if cause:
            raise ValueError(f"--engine-clients {clients}: {problem}")


def check_engine_options(options: Mapping[str, Any], engine: str, repository: Path) -> None:
    """Check the options of an engine that runs in Python.

    Raises ValueError naming the flag, and what may have been meant of all options.
    """
    others = own_flags() | MODEL_SETTINGS.keys() | {setting.name for setting in fields(Settings)} | ADAPTER_OPTIONS
    own = {name: value for name, value in options.items() if name not in ADAPTER_OPTIONS}
    flags = [flag_of(name) for name in others]
    if engine == _VLLM:
        check_vllm_options(own, flags)
    else:
        check_other_options(engine, own, repository, flags)


def _wrong(what: str, given: str, known: tuple[str, ...], more: str = "") -> LaunchError:
    guess = did_you_mean(given, known)
    return LaunchError(f"{what}{guess}" if guess else f"{what}; known: {', '.join(known)}{more}.")


def check_context(model: ServedModel, options: LaunchOptions, environment: Mapping[str, str]) -> None:
    """Check that the checkpoint has the context that is asked for; raises LaunchError.

    Only what vLLM is sure to refuse: it stretches some checkpoints' contexts.
    """
    wanted = options.max_model_len
    if wanted is None or model.kind != CHAT or engine_name(options, environment) != _VLLM:
        return
    if options.engine.get("hf_overrides") or environment.get(_LONGER, "").lower() in ("1", "true"):
        return
    config = read_json(model.checkpoint.path / "config.json")
    stretch = max(1.0, *_numbers(config, "factor"), 1.0)
    longest = max(model.checkpoint.max_position_embeddings, *_numbers(config, "model_max_length"), 0) * stretch
    if wanted > longest:
        raise LaunchError(
            f"--max-model-len {wanted} is longer than the context of {model.name}, {longest:.0f} tokens.",
            f"Lower it, or set {_LONGER}=1 if you know that the model can do more.",
        )


def check_before_weights(model: ServedModel, options: LaunchOptions, environment: Mapping[str, str]) -> None:
    """Check what can be known before weights are downloaded or converted; raises LaunchError."""
    check_context(model, options, environment)
    if model.weight_bytes and engine_name(options, environment) != TRTLLM:
        check_memory(model, memory_environment(options, environment))


def memory_environment(options: LaunchOptions, environment: Mapping[str, str]) -> dict[str, str]:
    """What `engine_memory` reads, before the environment of tritonserver is made."""
    engine = engine_name(options, environment)
    return {"VLLM_CPU_KVCACHE_SPACE": CPU_KV_CACHE_GIB, **environment, "TRITON_CHAT_ENGINE": engine}


def _numbers(config: object, key: str) -> Iterator[float]:
    """The numbers under this key, anywhere in a configuration."""
    for name, value in config.items() if isinstance(config, dict) else ():
        if name == key and isinstance(value, int | float):
            yield value
        else:
            yield from _numbers(value, key)


def check_formats(environment: Mapping[str, str]) -> None:
    """Check what replaces the checkpoint's chat template and the family's parsers; raises LaunchError."""
    for name in FORMATS:
        if problem := format_problem(name, environment):
            raise LaunchError(problem)


def format_problem(name: str, environment: Mapping[str, str]) -> str | None:
    """What is wrong with the value of an option in FORMATS, or None."""
    value = format_value(name, environment)
    try:
        if value is not None:
            FORMATS[name](value)
    except ValueError as error:
        return f"{flag_of(name)}: {error}" if str(error).endswith("?") else f"{flag_of(name)}: {error}."
    return None


def format_value(name: str, environment: Mapping[str, str]) -> str | None:
    """The value of an option in FORMATS, or None if the checkpoint decides."""
    value = environment.get(ENV_PREFIX + name.upper())
    return value if value and value != AUTO else None


def check_memory(model: ServedModel, environment: Mapping[str, str]) -> None:
    """Check that weights and KV cache fit into memory; raises LaunchError. On a GPU the engine itself checks."""
    needed, free = engine_memory(model, environment), available_memory()
    cache = needed - model.weight_bytes
    if needed > free:
        raise LaunchError(
            f"{model.name} needs {model.weight_bytes / GIB:.1f} GiB for its weights"
            + (f" and {cache / GIB:.1f} GiB for the KV cache" if cache else "")
            + f", but only {free / GIB:.1f} GiB of memory is available.",
            "Choose a smaller model" + (" or a smaller VLLM_CPU_KVCACHE_SPACE (GiB)." if cache else "."),
        )


def check_memory_together(models: Mapping[str, tuple[ServedModel, int]]) -> None:
    """Check that several models fit into memory together; raises LaunchError.

    models: name -> the model, and the bytes that `engine_memory` says.
    """
    needed, free = sum(memory for _, memory in models.values()), available_memory()
    if needed > free:
        parts = "; ".join(
            f"{name} {model.weight_bytes / GIB:.1f} GiB of weights"
            + (f" and {cache / GIB:.1f} GiB of KV cache" if (cache := memory - model.weight_bytes) else "")
            for name, (model, memory) in models.items()
            if memory
        )
        raise LaunchError(
            f"the models need {needed / GIB:.1f} GiB of memory together, but only {free / GIB:.1f} GiB is available: "
            f"{parts}.",
            "Serve fewer or smaller ones, or set a smaller VLLM_CPU_KVCACHE_SPACE (GiB) in `environment`.",
        )


def engine_memory(model: ServedModel, environment: Mapping[str, str]) -> int:
    """Bytes of the machine's memory for weights and KV cache; 0 if they are on a GPU.

    Only of vLLM it is known how large the cache is.
    """
    if has_gpu(environment):
        return 0
    if (environment.get("TRITON_CHAT_ENGINE") or _VLLM) != _VLLM:
        return model.weight_bytes
    return model.weight_bytes + int(float(environment["VLLM_CPU_KVCACHE_SPACE"]) * GIB)


def available_memory() -> int:
    """Bytes that can still be used here, within the machine's memory and a container's limit."""
    free = int(psutil.virtual_memory().available)
    for limit_file, used_file in _CGROUP_FILES:
        if Path(limit_file).is_file() and Path(used_file).is_file():
            limit = Path(limit_file).read_text().strip()
            if limit != "max":
                used = int(Path(used_file).read_text()) - _droppable(Path(used_file).with_name(_CGROUP_STATISTICS))
                free = min(free, int(limit) - used)
            break
    return max(free, 0)


def _droppable(statistics: Path) -> int:
    """Bytes of a container's page cache that the kernel drops when the memory is needed; 0 if that is not known."""
    if not statistics.is_file():
        return 0
    values = dict(line.split(maxsplit=1) for line in statistics.read_text().splitlines() if " " in line)
    return next((int(values[name]) for name in _DROPPABLE if name in values), 0)
