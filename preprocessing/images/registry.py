# SPDX-License-Identifier: Apache-2.0
"""The families of image inputs, one for each path of pictures."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from common.checkpoint import Checkpoint, read_json
from common.tokenizer import ChatTokenizer
from common.vision_path import CONFIG, SPLIT_CONFIG, VisionPath, is_unsplit, vision_path
from preprocessing.images.family import ImageFamily, MediaOptions
from preprocessing.images.gemma3 import Gemma3Images
from preprocessing.images.raw import RawImages
from python_backend.config import ModelParameters

Create = Callable[[Checkpoint, ChatTokenizer, MediaOptions, dict[str, Any]], ImageFamily]

# A config without parameters: everything as by default.
_DEFAULTS = ModelParameters("preprocessing", {})


def _internvl(
    checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, config: dict[str, Any]
) -> ImageFamily:
    # Imported here as its compiled loops take half a second, which text models do without.
    from preprocessing.images.internvl import InternVLImages

    return InternVLImages(checkpoint, tokenizer, options, config)


def _processor(
    checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, parameters: ModelParameters
) -> ImageFamily:
    # Imported here as it imports vLLM, which takes seconds and 1 GB.
    from preprocessing.images.processor import ProcessorImages

    values = {**parameters.values, "model_path": str(checkpoint.path)}
    return ProcessorImages.load(tokenizer, options, replace(parameters, values=values))


def _raw(
    checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, config: dict[str, Any]
) -> ImageFamily:
    return RawImages(tokenizer, options)


# The path of pictures -> the configuration file that describes them, and the image family.
FAMILIES: Mapping[VisionPath, tuple[str, Create]] = {
    VisionPath.VIT: (SPLIT_CONFIG, _internvl),
    VisionPath.PIXELS: (CONFIG, Gemma3Images),
    VisionPath.RAW: (CONFIG, _raw),
}


def find_images(
    checkpoint: Checkpoint,
    tokenizer: ChatTokenizer,
    options: MediaOptions,
    parameters: ModelParameters = _DEFAULTS,
) -> ImageFamily | None:
    """The checkpoint's image family, or None for a model that takes no images.

    parameters: of the model's config. Raises ValueError if the checkpoint is incomplete, or cannot be served as they
    say.
    """
    path = vision_path(checkpoint.path, parameters.text("vision"), parameters.text("engine"))
    if is_unsplit(checkpoint.path, path):
        raise ValueError(f"'{checkpoint.path}' must be split first: `triton-chat prepare {checkpoint.path}` does it")
    if path is VisionPath.ENGINE:
        return _processor(checkpoint, tokenizer, options, parameters)
    if path not in FAMILIES:
        return None
    file, create = FAMILIES[path]
    return create(checkpoint, tokenizer, options, read_json(checkpoint.path / file))
