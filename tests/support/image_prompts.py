# SPDX-License-Identifier: Apache-2.0
"""Chats with images, and the prompt builders of the image families."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.gemma3 import Gemma3Images
from preprocessing.images.internvl import InternVLImages
from preprocessing.prompt import PromptBuilder, PromptRequest

OPTIONS = MediaOptions(limits=ImageLimits())
VISION = {
    "model_type": "internvit",
    "family": "internvl2_5",
    "image_size": 448,
    "patch_size": 14,
    "downsample_ratio": 0.5,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 12,
    "use_thumbnail": True,
    "image_start": "<img>",
    "image_token": "<IMG_CONTEXT>",
    "image_end": "</img>",
}
VOCAB = 151680
SMALL, WIDE, LARGE = (300, 300), (896, 448), (1600, 1200)  # 1, 3 and 13 tiles


def png(size: tuple[int, int], seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 10 + 1, size[0] // 10 + 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size).save(file, "PNG")
    return file.getvalue()


def user(*parts: str | dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


def image(**fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": fields}


def request(messages: list[dict[str, Any]], *sizes: tuple[int, int]) -> PromptRequest:
    files = tuple(png(size, seed) for seed, size in enumerate(sizes))
    return PromptRequest(messages=json.dumps({"messages": messages}), images=files)


def internvl_builder(folder: Path, options: MediaOptions = OPTIONS, max_model_len: int = 8192) -> PromptBuilder:
    checkpoint = Checkpoint(folder, "qwen2", ("Qwen2ForCausalLM",), VOCAB, 32768, (151645,), 151643)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<img>", "</img>", "<IMG_CONTEXT>"]})
    wrapped = ChatTokenizer(tokenizer)
    images = InternVLImages(checkpoint, wrapped, options, VISION)
    return PromptBuilder(checkpoint, wrapped, find_styler(checkpoint, "internvl2_5"), max_model_len, images)


def gemma3_builder(tokenizer: ChatTokenizer, options: MediaOptions) -> PromptBuilder:
    checkpoint = Checkpoint(Path(), "gemma3", ("Gemma3ForConditionalGeneration",), 262208, 32768, (1, 106), 0)
    config = {"vision_config": {"image_size": 896}, "mm_tokens_per_image": 256}
    images = Gemma3Images(checkpoint, tokenizer, options, config)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint), 16384, images)


def refused(builder: PromptBuilder, given: PromptRequest) -> RequestError:
    with pytest.raises(RequestError) as error:
        builder.build(given)
    return error.value
