# SPDX-License-Identifier: Apache-2.0
"""Find the LoRA adapters of the command line, and check that they fit the model before anything starts."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.adapters import CONFIG, DEFAULT_MAX_RANK, WEIGHTS, check_adapter, read_sources
from scripts.launcher.errors import LaunchError
from scripts.launcher.model import ServedModel
from scripts.launcher.options import LaunchOptions

# Options about adapters that vLLM's engine does not have.
OWN = frozenset({"allowed_lora_path", "lora_modules"})
_OF_PREPROCESSING = ("enable_lora", "lora_modules", "max_lora_rank")
# The largest rank with TensorRT-LLM, unless its config's lora_cache_max_adapter_size says otherwise.
_TRTLLM_RANK = 64


def with_adapters(
    launch: LaunchOptions, model: ServedModel, names: tuple[str, ...], *, trtllm: bool = False
) -> LaunchOptions:
    """Return the options with the absolute folder of each adapter of `lora_modules` and `allowed_lora_path`.

    An adapter that is no folder here is taken from the model hub. names: those of the model itself. trtllm: for
    TensorRT-LLM's C++ backend.
    Raises LaunchError naming an adapter that cannot be loaded, with the reason.
    """
    return replace(launch, engine=_with_adapters(launch.engine, model, names, trtllm))


def without_adapters(launch: LaunchOptions) -> tuple[LaunchOptions, dict[str, str]]:
    """Return options for TensorRT-LLM's C++ backend without adapters, and variables that name them to `preprocessing`.

    The backend gets adapters with requests.
    """
    adapters = launch.engine.get("lora_modules")
    engine = {name: value for name, value in launch.engine.items() if name not in _OF_PREPROCESSING}
    variables = {"TRITON_CHAT_LORA_MODULES": json.dumps(adapters)} if adapters else {}
    return replace(launch, engine=engine), variables


def _with_adapters(
    engine: Mapping[str, Any], model: ServedModel, names: tuple[str, ...], trtllm: bool
) -> dict[str, Any]:
    options = dict(engine)
    modules, allowed = options.get("lora_modules"), options.get("allowed_lora_path")
    if not modules and not allowed:
        return options
    if not options.get("enable_lora"):
        raise LaunchError("--lora-modules and --allowed-lora-path need --enable-lora.")
    try:
        sources = read_sources(modules) if modules else ()
    except ValueError as error:
        raise LaunchError(f"{error}.", "Example: --lora-modules sql=/adapters/sql poet=/adapters/poet") from None
    found, max_rank = [], _TRTLLM_RANK if trtllm else DEFAULT_MAX_RANK
    for source in sources:
        if source.name in names:
            raise LaunchError(f"--lora-modules: '{source.name}' is a name of the model itself.")
        folder = Path(source.path).expanduser()
        folder = folder.resolve() if folder.exists() or not _is_hub_id(source.path) else _downloaded(source.path)
        try:
            check_adapter(folder, model.checkpoint.path, options.get("max_lora_rank", max_rank))
        except ValueError as error:
            raise LaunchError(f"the LoRA adapter '{source.name}' cannot be served: {error}.") from None
        found.append({"name": source.name, "path": str(folder)})
    if modules:
        options["lora_modules"] = found
    if allowed:
        options["allowed_lora_path"] = [_folder(path) for path in ([allowed] if isinstance(allowed, str) else allowed)]
    return options


def _folder(path: Any) -> str:
    folder = Path(str(path)).expanduser().resolve()
    if not folder.is_dir():
        raise LaunchError(f"--allowed-lora-path: there is no folder {folder}.")
    return str(folder)


def _is_hub_id(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "~", "/"))


def _downloaded(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=[CONFIG, WEIGHTS]))  # nosec B615 # the adapter that the operator named
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise LaunchError(
            f"'{hub_id}' is neither a folder here nor an adapter that the model hub gives.",
            "Offline give --lora-modules folders; a private adapter needs HF_TOKEN.",
        ) from error
