# SPDX-License-Identifier: Apache-2.0
"""One module per model family, and how a checkpoint's family is found."""

from collections.abc import Mapping
from typing import Any

from common.checkpoint import Checkpoint
from common.vision_config import vision_config
from families.stylers.base import Styler
from families.stylers.default import DefaultStyler
from families.stylers.gemma3 import Gemma3Styler
from families.stylers.internvl2_5 import InternVLStyler
from families.stylers.llama3 import HEADER, Llama3Styler
from families.stylers.qwen import QwenStyler
from families.stylers.qwen3 import Qwen3Styler

__all__ = ["STYLERS", "Styler", "find_styler"]

STYLERS: dict[str, type[Styler]] = {
    "qwen": QwenStyler,
    "qwen3": Qwen3Styler,
    "internvl2_5": InternVLStyler,
    "gemma3": Gemma3Styler,
    "llama3": Llama3Styler,
    "default": DefaultStyler,
}

# `model_type` of config.json -> family. Llama is looked at more closely: Llama 2 and SmolLM share its type.
_FAMILIES = {
    "qwen2": "qwen",
    "qwen2_moe": "qwen",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3",
    "internvl_chat": "internvl2_5",
    "internvl": "internvl2_5",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
}


def find_styler(
    checkpoint: Checkpoint, name: str | None = None, template_defaults: Mapping[str, Any] | None = None
) -> Styler:
    """The styler called `name`, or without a name that of the checkpoint's family.

    template_defaults: the server's own `chat_template_kwargs`, such as `{"enable_thinking": False}`.
    Raises ValueError for an unknown name, listing the known ones.
    """
    vision = vision_config(checkpoint.path)
    name = name or vision.get("family") or _family(checkpoint)
    if name not in STYLERS:
        raise ValueError(f"unknown styler '{name}'; known: {', '.join(sorted(STYLERS))}")
    if "system_prompt" in vision:
        template_defaults = {"default_system": vision["system_prompt"], **(template_defaults or {})}
    return STYLERS[name](template_defaults)


def _family(checkpoint: Checkpoint) -> str:
    if "InternVLChatModel" in checkpoint.architectures:
        return "internvl2_5"
    if checkpoint.model_type == "llama":
        return "llama3" if _has_llama3_headers(checkpoint) else "default"
    return _FAMILIES.get(checkpoint.model_type, "default")


def _has_llama3_headers(checkpoint: Checkpoint) -> bool:
    files = (checkpoint.path / name for name in ("tokenizer_config.json", "chat_template.jinja", "tokenizer.json"))
    return any(HEADER in file.read_text(encoding="utf-8") for file in files if file.is_file())
