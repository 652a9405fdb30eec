# SPDX-License-Identifier: Apache-2.0
"""The families of image inputs, and which of them a checkpoint belongs to."""

from collections.abc import Callable, Mapping
from typing import Any

from common.checkpoint import Checkpoint, read_json
from common.tokenizer import ChatTokenizer
from preprocessing.images.family import ImageFamily, MediaOptions
from preprocessing.images.gemma3 import Gemma3Images

Create = Callable[[Checkpoint, ChatTokenizer, MediaOptions, dict[str, Any]], ImageFamily]


def _internvl(
    checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, config: dict[str, Any]
) -> ImageFamily:
    # Imported here as its compiled loops take half a second, which text models do without.
    from preprocessing.images.internvl import InternVLImages

    return InternVLImages(checkpoint, tokenizer, options, config)


# (a configuration file of the checkpoint, its `model_type`) -> the image family.
FAMILIES: Mapping[tuple[str, str], Create] = {
    ("vision/config.json", "internvit"): _internvl,
    ("config.json", "gemma3"): Gemma3Images,
}


def find_images(checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions) -> ImageFamily | None:
    """The checkpoint's image family, or None for a text model; raises ValueError if the checkpoint is incomplete."""
    for (file, model_type), create in FAMILIES.items():
        config = read_json(checkpoint.path / file)
        if config.get("model_type") == model_type:
            return create(checkpoint, tokenizer, options, config)
    return None
