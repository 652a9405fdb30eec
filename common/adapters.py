# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters: how an option names them, what an engine tells of them, and whether one fits a checkpoint."""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.checkpoint import read_json

# The output by which a Python engine tells its adapters. It is sent only if it is the one requested output of a stop.
ADAPTERS = "adapters"
# Request parameters of such a stop, which load and unload an adapter by its name.
LOAD, LOAD_PATH, REPLACE, UNLOAD = "load_adapter", "adapter_path", "replace_adapter", "unload_adapter"
CHANGES = frozenset({LOAD, UNLOAD})
# Request parameter by which the adapter's weights go along to NVIDIA's C++ backend, which keeps them in a cache.
SEND_WEIGHTS = "send_adapter"
DEFAULT_MAX_RANK = 16  # vLLM's
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# A name in requests: no control characters, and not endless.
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,256}")
# What PEFT writes before the name of a module of the base.
PREFIX = "base_model.model."
_MATRIX = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_LAYER = re.compile(r"(.*?\.\d+)\.")
# Fields of PEFT's config with which the answer is more than the base and its LoRA matrices.
_CHANGED_MEANING = ("lora_bias", "alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")
# Beginnings of the values of `init_lora_weights` with which PEFT changes the base as well.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_FLOATS = ("BF16", "F16", "F32", "F64", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A loaded adapter. id: the value of `lora_task_id` that chooses it. path: its folder on the engine's machine."""

    name: str
    id: int
    path: str


@dataclass(frozen=True, slots=True)
class AdapterSource:
    """An adapter to load: the folder that PEFT wrote, and its name in requests."""

    name: str
    path: str


def read_sources(value: Any) -> tuple[AdapterSource, ...]:
    """Read the option `lora_modules`: a list of `name=path`, objects with name and path, or objects of name: path.

    An object may also be JSON text. Raises ValueError for anything else, and for a name that is there twice.
    """
    entries = [entry for one in (value if isinstance(value, list | tuple) else [value]) for entry in _entries(one)]
    sources = tuple(AdapterSource(check_name(name), str(path)) for name, path in entries)
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"lora_modules: a name is there twice: {', '.join(names)}")
    return sources


def _entries(one: Any) -> list[tuple[Any, Any]]:
    if isinstance(one, str) and one.lstrip().startswith("{"):
        try:
            one = json.loads(one)
        except ValueError as error:
            raise ValueError(f"lora_modules: {one} is not valid JSON: {error}") from None
    if isinstance(one, Mapping):
        if one.get("name") and one.get("path"):
            return [(one["name"], one["path"])]
        if one and "path" not in one and all(isinstance(path, str) for path in one.values()):
            return list(one.items())
    if isinstance(one, str):
        name, equals, path = one.partition("=")
        if name and equals and path:
            return [(name, path)]
    raise ValueError(f'lora_modules: expected NAME=PATH or {{"name": ..., "path": ...}}, not {one}')


def check_name(name: Any) -> str:
    """Return a name that an adapter may have; raises ValueError if this one cannot be used."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name of an adapter: it takes 1 to 256 characters without control characters"
        )
    return name


def adapter_id(source: AdapterSource) -> int:
    """Return the id of an adapter: 1 to 2^31 - 1, made of its name and the content of its files.

    It is the same in every server with these files and after every start, and another for another adapter: neither a
    client with an old id nor a prefix cache can confuse two. Raises OSError if a file cannot be read.
    """
    digest = hashlib.blake2b(source.name.encode(), digest_size=8)
    for name in (CONFIG, WEIGHTS):
        with (Path(source.path) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return int.from_bytes(digest.digest(), "big") % (2**31 - 1) + 1


def to_json(adapters: Iterable[Adapter]) -> str:
    """Write the output ADAPTERS."""
    return json.dumps([asdict(adapter) for adapter in adapters])


def from_json(text: str) -> tuple[Adapter, ...]:
    """Read the output ADAPTERS; what is no adapter is left out."""
    found = json.loads(text or "[]")
    return tuple(
        Adapter(one["name"], one["id"], str(one.get("path", "")))
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and isinstance(one.get("name"), str) and isinstance(one.get("id"), int)
    )


def check_adapter(folder: Path, base: Path, max_rank: int = DEFAULT_MAX_RANK) -> None:
    """Check by the headers of its files that an adapter can be loaded on a base; raises ValueError with the reason.

    base: the checkpoint's folder. max_rank: the engine's option max_lora_rank.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    _check_config(read_json(folder / CONFIG), folder, max_rank)
    shapes = _shapes(folder / WEIGHTS)
    modules = _modules(shapes)
    if not modules:
        raise ValueError(f"{folder / WEIGHTS} has no LoRA weights")
    _check_base(modules, base)


def _check_config(config: Mapping[str, Any], folder: Path, max_rank: int) -> None:
    if not config:
        raise ValueError(f"{folder} has no {CONFIG}: it is not a folder of a PEFT adapter")
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise ValueError(f"{folder} is an adapter of the type {kind}; only LoRA can be served")
    if config.get("use_dora"):
        raise ValueError(f"{folder} is a DoRA adapter, which no engine here can serve")
    if ignored := [name for name in _CHANGED_MEANING if config.get(name)]:
        raise ValueError(f"{folder} is more than a LoRA adapter ({', '.join(ignored)}), which no engine here can serve")
    if str(config.get("init_lora_weights")).lower().startswith(_CHANGED_BASE):
        raise ValueError(
            f"{folder} was made on changed weights of its base (init_lora_weights {config['init_lora_weights']}): "
            "convert it with PEFT's path_initial_model_for_weight_conversion"
        )
    if config.get("bias", "none") != "none" or config.get("modules_to_save"):
        raise ValueError(f"{folder} also replaces weights of its base (bias, modules_to_save): only LoRA can be served")
    pattern, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    for name, value in (("rank_pattern", pattern), ("alpha_pattern", alphas)):
        if not isinstance(value, dict):
            raise ValueError(f"{folder / CONFIG} has a {name} that is not an object")
    if not all(type(alpha) in (int, float) and math.isfinite(alpha) for alpha in alphas.values()):
        raise ValueError(f"{folder / CONFIG} has an alpha_pattern with another value than a number")
    ranks = [config.get("r"), *pattern.values()]
    if not all(type(rank) is int and rank > 0 for rank in ranks):
        raise ValueError(f"{folder / CONFIG} has no usable rank: r is {config.get('r')!r}")
    if max(ranks) > max_rank:
        raise ValueError(f"{folder} has the rank {max(ranks)}, above the limit of {max_rank} (--max-lora-rank)")


def scaling(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of a module's lora_B x lora_A, as PEFT has it. module: its name in the base. rank: of its matrices."""
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        # PEFT takes the first pattern that is the name, or its end after a dot.
        try:
            found = re.match(rf"(.*\.)?({pattern})$", module)
        except re.error as error:
            raise ValueError(f"alpha_pattern: {pattern} is no regular expression: {error}") from None
        if found:
            alpha = float(own)
            break
    else:
        alpha = float(config["lora_alpha"])
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _shapes(file: Path, *, of: str = "adapter") -> dict[str, tuple[int, ...]]:
    """The shapes of a file's matrices of floats, by name; only its header is read, and compared with its size."""
    # Here, as a frontend alone has no such package.
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise ValueError(f"the {of} has no file {file}")
    try:
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 # not a mapping
            return {name: tuple(one.get_shape()) for name, one in slices.items() if one.get_dtype() in _FLOATS}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} is damaged or not wholly copied ({error})") from None


def _modules(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    """Each adapted module of the base with its (outputs, inputs); raises ValueError if a half is missing."""
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        found = _MATRIX.fullmatch(name.removeprefix(PREFIX))
        if found is not None and len(shape) == 2:
            sides.setdefault(found["module"], {})[found["side"]] = shape
    for module, halves in sides.items():
        if len(halves) < 2 or halves["A"][0] != halves["B"][1]:
            raise ValueError(f"its lora_A and lora_B of {module} do not belong together")
    return {module: (halves["B"][0], halves["A"][1]) for module, halves in sides.items()}


def _check_base(modules: Mapping[str, tuple[int, int]], base: Path) -> None:
    """Compare with the base's matrices of the same names. Without any, names are mapped by the engine, which checks."""
    weights: dict[str, tuple[int, ...]] = {}
    for file in sorted(base.glob("*.safetensors")):
        weights |= _shapes(file, of="base")
    layers = {found[1] for name in weights if (found := _LAYER.match(name))}
    if not any(f"{module}.weight" in weights for module in modules):
        return
    for module, (outputs, inputs) in modules.items():
        own = weights.get(f"{module}.weight")
        if own is not None and len(own) == 2 and own != (outputs, inputs):
            raise ValueError(
                f"it was made for another base: its {module} has {inputs} inputs and {outputs} outputs, "
                f"that of {base.name} {own[1]} and {own[0]}"
            )
        layer = _LAYER.match(module)
        if layer is not None and layer[1] not in layers:
            raise ValueError(f"it was made for another base: {base.name} has no {layer[1]}")
