# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints take images, and how."""

from preprocessing.checkpoint import Checkpoint, read_json
from preprocessing.images.family import ImageFamily, MediaOptions
from preprocessing.images.gemma3 import Gemma3Images
from preprocessing.images.internvl import InternVLImages
from preprocessing.images.vision import vision_config
from preprocessing.tokenizer import ChatTokenizer

# `model_type` of the configuration that describes the vision tower -> family.
FAMILIES: dict[str, type[InternVLImages] | type[Gemma3Images]] = {"internvit": InternVLImages, "gemma3": Gemma3Images}


def find_images(checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions) -> ImageFamily | None:
    """The checkpoint's family of images, or None for a text model. Raises ValueError for an incomplete checkpoint."""
    config = vision_config(checkpoint.path)
    if config.get("model_type") not in FAMILIES:
        config = read_json(checkpoint.path / "config.json")
    make = FAMILIES.get(str(config.get("model_type")))
    return make(checkpoint, tokenizer, options, config) if make else None
