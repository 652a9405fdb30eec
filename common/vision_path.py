# SPDX-License-Identifier: Apache-2.0
"""Which way the pictures of a checkpoint take to its language model: one table for the launcher and `preprocessing`."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.checkpoint import read_json

CONFIG, SPLIT_CONFIG = "config.json", "vision/config.json"
# A checkpoint that has one of these files, or a configuration of a vision part, may take pictures.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# NVIDIA's C++ backend of TensorRT-LLM, which takes rows of a prompt embedding table only, and TensorRT-LLM's LLM API,
# which has processors of its own.
_TRTLLM, LLMAPI = "trtllm", "llmapi"
# Tables of vLLM's registry with what it no longer serves, or only with a plugin.
_NOT_SERVED = ("_PREVIOUSLY_SUPPORTED_MODELS", "_OOT_SUPPORTED_MODELS")


class VisionPath(StrEnum):
    """The way of the pictures.

    NONE: the model takes none, or is served without them. VIT: the model `vit` runs the vision tower, the engine only
    the language model. PIXELS: the engine runs the tower on pictures that `preprocessing` has resized. ENGINE:
    `preprocessing` runs the checkpoint's own processor, as vLLM has it, and the engine the whole model. RAW: the engine
    runs the processor too.
    """

    NONE = "none"
    VIT = "vit"
    PIXELS = "pixels"
    ENGINE = "engine"
    RAW = "raw"


# (a configuration file of the checkpoint, its `model_type`) -> the path. Any other checkpoint that vLLM knows to take
# pictures takes ENGINE.
PATHS: Mapping[tuple[str, str], VisionPath] = {
    # Split already, by the launcher or by hand.
    (SPLIT_CONFIG, "internvit"): VisionPath.VIT,
    # Split by the launcher.
    (CONFIG, "internvl_chat"): VisionPath.VIT,
    (CONFIG, "internvl"): VisionPath.VIT,
    # Its image tokens attend to each other, which `engines/vllm` adds on CPUs.
    (CONFIG, "gemma3"): VisionPath.PIXELS,
}
AUTO = "auto"
# The values of the option `vision`.
CHOICES = (AUTO, "engine", "vit", "none")


@dataclass(frozen=True, slots=True)
class VllmModels:
    """The architectures that the installed vLLM serves. multimodal: those of them that take more than text."""

    multimodal: frozenset[str]
    known: frozenset[str]


def vision_path(folder: Path, wanted: str | None = None, engine: str | None = None) -> VisionPath:
    """The path of a checkpoint's pictures.

    wanted: one of CHOICES, None for AUTO. engine: the engine's name, None for vLLM.
    Raises ValueError, in one sentence, if the checkpoint cannot be served in this way.
    """
    wanted = wanted or AUTO
    if wanted not in CHOICES:
        raise ValueError(f"vision must be one of {', '.join(CHOICES)}, not '{wanted}'")
    if wanted == "none":
        return VisionPath.NONE
    config = read_json(folder / CONFIG)
    own = next((path for (file, kind), path in PATHS.items() if _kind(folder, file, config) == kind), None)
    path = _chosen(folder, config, own, wanted, engine)
    if path is VisionPath.ENGINE and engine in (_TRTLLM, LLMAPI):
        raise ValueError(
            f"--engine {engine} takes no pictures of '{folder.name}' ({_named(config)}): serve it with vLLM, or with "
            "--vision none without pictures"
        )
    return path


def is_unsplit(folder: Path, path: VisionPath) -> bool:
    """Whether a checkpoint on this path has to be split into language model and vision part first."""
    return path is VisionPath.VIT and not read_json(folder / SPLIT_CONFIG)


def may_take_pictures(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a checkpoint has the files of a model that takes pictures."""
    return "vision_config" in config or any((folder / name).is_file() for name in PROCESSOR_FILES)


@cache
def vllm_models() -> VllmModels | None:
    """What the installed vLLM knows, or None without one.

    It is read from the source of its registry, as importing vLLM takes ten seconds and 1 GB.
    """
    vllm = find_spec("vllm")
    file = Path(vllm.origin or "").parent / "model_executor" / "models" / "registry.py" if vllm else None
    if file is None or not file.is_file():
        return None
    multimodal: set[str] = set()
    known: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Dict):
            continue
        table = ast.unparse(node.targets[0])
        if not table.endswith("_MODELS") or table in _NOT_SERVED:
            continue
        for key, value in zip(node.value.keys, node.value.values, strict=True):
            if isinstance(key, ast.Constant):
                known.add(str(key.value))
                if table == "_MULTIMODAL_MODELS" or "MultiModal" in ast.unparse(value):
                    multimodal.add(str(key.value))
    return VllmModels(frozenset(multimodal), frozenset(known))


def _chosen(
    folder: Path, config: Mapping[str, Any], own: VisionPath | None, wanted: str, engine: str | None
) -> VisionPath:
    """The path, by the checkpoint's row of PATHS and the choice. Raises ValueError as `vision_path` does."""
    name = f"'{folder.name}' ({_named(config)})"
    if wanted == "vit" and own is not VisionPath.VIT:
        raise ValueError(f"--vision vit is for checkpoints of InternVL, whose tower `vit` runs, and not for {name}")
    if wanted == "engine" and own is VisionPath.VIT:
        if (folder / SPLIT_CONFIG).is_file():
            raise ValueError(f"--vision engine needs the checkpoint from before its split, and {name} is split")
        return VisionPath.ENGINE
    if own is not None:
        return own
    if not may_take_pictures(folder, config):
        if wanted == "engine":
            raise ValueError(f"--vision engine needs a model that takes pictures, which {name} is not")
        return VisionPath.NONE
    if engine == LLMAPI:
        return VisionPath.RAW
    models = vllm_models()
    if wanted == "engine" or models is None:
        return VisionPath.ENGINE if wanted == "engine" else VisionPath.NONE
    architectures = set(config.get("architectures") or ())
    if architectures & models.multimodal:
        return VisionPath.ENGINE
    if architectures & models.known:
        return VisionPath.NONE
    raise ValueError(
        f"no way is known for the pictures of {name}, an architecture that the installed vLLM does not have: "
        "--vision engine tries it with the code of transformers, --vision none serves it without pictures"
    )


def _kind(folder: Path, file: str, config: Mapping[str, Any]) -> Any:
    return (config if file == CONFIG else read_json(folder / file)).get("model_type")


def _named(config: Mapping[str, Any]) -> str:
    return ", ".join(config.get("architectures") or ()) or f"model_type {config.get('model_type')!r}"
