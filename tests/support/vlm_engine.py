# SPDX-License-Identifier: Apache-2.0
"""What `preprocessing` makes of a vision-language checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.registry import find_images
from preprocessing.prompt import PromptBuilder
from python_backend.config import ModelParameters


def prompt_builder(
    folder: Path,
    max_model_len: int,
    options: Mapping[str, Any],
    video_frames: int = 8,
    vision: str = "auto",
    styler: str | None = None,
) -> PromptBuilder:
    """What `preprocessing` makes of a checkpoint. options: of the engine."""
    values = {"engine": "vllm", "vision": vision, "max_model_len": str(max_model_len)}
    parameters = ModelParameters("preprocessing", values | {"engine_options": json.dumps(options)})
    checkpoint, tokenizer = Checkpoint.load(folder), ChatTokenizer.load(folder)
    images = find_images(checkpoint, tokenizer, MediaOptions(ImageLimits(), video_frames=video_frames), parameters)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint, styler), max_model_len, images)
