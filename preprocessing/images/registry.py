# SPDX-License-Identifier: Apache-2.0
"""The families of image inputs, one for each path of pictures."""

from collections.abc import Callable, Mapping
from typing import Any

from common.checkpoint import Checkpoint, read_json
from common.tokenizer import ChatTokenizer
from common.vision_path import CONFIG, SPLIT_CONFIG, VisionPath, is_unsplit, vision_path
from preprocessing.images.family import ImageFamily, MediaOptions
from preprocessing.images.gemma3 import Gemma3Images

Create = Callable[[Checkpoint, ChatTokenizer, MediaOptions, dict[str, Any]], ImageFamily]


def _internvl(
    checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, config: dict[str, Any]
) -> ImageFamily:
    # Imported here as its compiled loops take half a second, which text models do without.
    from preprocessing.images.internvl import InternVLImages

    return InternVLImages(checkpoint, tokenizer, options, config)


# The path of pictures -> the configuration file that describes them, and the image family.
FAMILIES: Mapping[VisionPath, tuple[str, Create]] = {
    VisionPath.VIT: (SPLIT_CONFIG, _internvl),
    VisionPath.PIXELS: (CONFIG, Gemma3Images),
}


def find_images(
    checkpoint: Checkpoint,
    tokenizer: ChatTokenizer,
    options: MediaOptions,
    vision: str | None = None,
    engine: str | None = None,
) -> ImageFamily | None:
    """The checkpoint's image family, or None for a text model.

    vision, engine: as `vision_path` takes them. Raises ValueError if the checkpoint is incomplete or has no such path.
    """
    path = vision_path(checkpoint.path, vision, engine)
    if is_unsplit(checkpoint.path, path):
        raise ValueError(f"'{checkpoint.path}' must be split first: `triton-chat prepare {checkpoint.path}` does it")
    if path not in FAMILIES:
        return None
    file, create = FAMILIES[path]
    return create(checkpoint, tokenizer, options, read_json(checkpoint.path / file))
