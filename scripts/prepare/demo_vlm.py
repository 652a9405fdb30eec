# SPDX-License-Identifier: Apache-2.0
"""Prepare the demo vision-language model: the default model with the trained adapter merged, and its vision tower."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from models.demo_vlm.layout import LORA_SCALE, VISION_CONFIG, WEIGHTS
from models.demo_vlm.naming import LANGUAGE_PREFIX, VISION_PREFIX, rename_image_tokens
from scripts.cache import build_once, cache_dir, is_built
from scripts.prepare import smollm2
from scripts.setup.steps import announce_model
from scripts.shared.errors import CommandError
from scripts.shared.own_process import in_own_process

if TYPE_CHECKING:
    from torch import Tensor

NAME = "demo-vlm"
# Increased when the folder is built in another way, so that older ones are built again.
_FORMAT = 2
_COPIED = ("config.json", "tokenizer_config.json", "chat_template.jinja")


def home() -> Path:
    """The served folder in the cache, whether it exists or not."""
    return cache_dir() / "models" / NAME


def prepare_demo_vlm(console: Console | None = None) -> Path:
    """Build the served folder if needed, and the default model before it; returns the folder.

    Raises CommandError if the weights file is missing or does not fit the default model.
    """
    console = console or Console(stderr=True, highlight=False)
    if not WEIGHTS.is_file():
        raise CommandError(f"the demo model's weights are missing: '{WEIGHTS}'")
    version = f"format {_FORMAT} weights {hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()} config {_config_digest()}"
    what = f"{NAME}, {smollm2.SIZE} of {smollm2.NAME} with weights of this project"
    announce_model(console, what, needed=not is_built(home(), version))
    base = smollm2.prepare_default_model()
    build_once(home(), version, lambda folder: in_own_process(build, base, WEIGHTS, folder))
    return home()


def build(base: Path, weights: Path, folder: Path) -> None:
    """Write the served folder. base: the default model's folder. weights: the file with the trained tensors."""
    # Imported here because it takes seconds, and most calls have nothing to build.
    from safetensors.torch import load_file, save_file

    trained = load_file(weights)
    language = _merge_language(load_file(base / "model.safetensors"), _part(trained, LANGUAGE_PREFIX))
    save_file(language, folder / "model.safetensors", metadata={"format": "pt"})
    for name in _COPIED:
        shutil.copyfile(base / name, folder / name)
    _write(folder / "generation_config.json", _greedy(_read(base / "generation_config.json")))
    _write(folder / "tokenizer.json", rename_image_tokens(_read(base / "tokenizer.json")))
    vision = folder / "vision"
    vision.mkdir()
    _write(vision / "config.json", VISION_CONFIG)
    save_file(_part(trained, VISION_PREFIX), vision / "model.safetensors", metadata={"format": "pt"})
    for file in (folder / "model.safetensors", vision / "model.safetensors"):
        # safetensors creates files that only the owner can read; a container's user must read them, too.
        file.chmod(0o644)


def _part(tensors: "dict[str, Tensor]", prefix: str) -> "dict[str, Tensor]":
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _merge_language(language: "dict[str, Tensor]", changes: "dict[str, Tensor]") -> "dict[str, Tensor]":
    from models.demo_vlm.adapter import merge_adapter

    layers = {name.rpartition(".")[0] for name in changes}
    unknown = sorted(layer for layer in layers if f"{layer}.weight" not in language)
    if unknown:
        raise CommandError(f"the default model has no weight for the change of '{unknown[0]}'")
    new = {
        f"{layer}.weight": merge_adapter(
            language[f"{layer}.weight"], changes[f"{layer}.down"], changes[f"{layer}.up"], LORA_SCALE
        )
        for layer in layers
    }
    return language | new


def _config_digest() -> str:
    return hashlib.sha256(json.dumps([VISION_CONFIG, LORA_SCALE]).encode()).hexdigest()


def _greedy(generation: dict[str, Any]) -> dict[str, Any]:
    """The generation config without sampling: each question about a picture has one right answer."""
    sampling = ("temperature", "top_p", "top_k")
    return {name: value for name, value in generation.items() if name not in sampling} | {"do_sample": False}


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
