# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints take images, and how."""

from common.checkpoint import Checkpoint, read_json, vision_config
from common.tokenizer import ChatTokenizer
from preprocessing.images.family import ImageFamily, MediaOptions
from preprocessing.images.gemma3 import Gemma3Images


def find_images(checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions) -> ImageFamily | None:
    """The checkpoint's family of images, or None for a text model. Raises ValueError for an incomplete checkpoint."""
    config = vision_config(checkpoint.path)
    if config.get("model_type") == "internvit":
        # Imported here as its compiled loops take half a second, which text models do without.
        from preprocessing.images.internvl import InternVLImages

        return InternVLImages(checkpoint, tokenizer, options, config)
    config = read_json(checkpoint.path / "config.json")
    return Gemma3Images(checkpoint, tokenizer, options, config) if config.get("model_type") == "gemma3" else None
