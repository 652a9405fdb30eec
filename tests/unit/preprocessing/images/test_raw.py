# SPDX-License-Identifier: Apache-2.0
"""Images for an engine that has the processor itself: placed by the chat template, decoded, and nothing else."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.raw_pictures import unpack
from common.shared_bytes import joined
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from preprocessing.images.decode import ImageLimits
from preprocessing.images.raw import RawImages
from preprocessing.images.registry import find_images
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest
from python_backend.config import ModelParameters
from tests.support.image_prompts import OPTIONS

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
# As Qwen2-VL's writes parts.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% if message.content is string %}"
    "{{ message.content }}{% else %}{% for part in message.content %}{% if part.type == 'image' %}"
    + IMAGE
    + "{% elif part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant"
)
PICTURE = {"type": "image_url", "image_url": {"url": ""}}
CONFIG = {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": {}}


@pytest.fixture
def builder(qwen3_tokenizer_dir: Path, tmp_path: Path) -> PromptBuilder:
    tokenizer = ChatTokenizer.load(qwen3_tokenizer_dir, TEMPLATE)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    checkpoint = Checkpoint(tmp_path, "qwen2_vl", (), 151936, 2048, (151645,), 151643)
    images = find_images(checkpoint, tokenizer, OPTIONS, ModelParameters("preprocessing", {"engine": "llmapi"}))
    assert isinstance(images, RawImages)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint), images=images)


def png(width: int, height: int, seed: int) -> tuple[bytes, Image.Image]:
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue(), image


def asked(builder: PromptBuilder, *content: Any, files: tuple[bytes, ...], **fields: Any) -> EngineInput:
    messages = json.dumps({"messages": [{"role": "user", "content": list(content)}], **fields})
    return builder.build(PromptRequest(messages=messages, images=files))


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


def test_the_template_places_them(builder: PromptBuilder) -> None:
    (one, first), (two, second) = png(40, 30, 1), png(9, 50, 2)
    built = asked(builder, text("a"), PICTURE, text("b"), PICTURE, files=(one, two))
    assert builder.tokenizer.backend.decode(built.input_ids, skip_special_tokens=False) == (
        f"<|im_start|>user\na{IMAGE}b{IMAGE}<|im_end|>\n<|im_start|>assistant"
    )
    assert built.features is not None and not built.pictures
    pictures = unpack(joined(built.features))
    assert all(np.array_equal(read, np.asarray(own)) for read, own in zip(pictures, (first, second), strict=True))


def test_low_detail_is_small(builder: PromptBuilder) -> None:
    file, _ = png(1024, 600, 1)
    built = asked(builder, {"type": "image_url", "image_url": {"url": "", "detail": "low"}}, files=(file,))
    assert built.features is not None
    assert [picture.shape for picture in unpack(joined(built.features))] == [(300, 512, 3)]


def test_a_text_without_places_has_them_first(builder: PromptBuilder) -> None:
    file, _ = png(8, 8, 1)
    for prompt, places in (("Hello", f"{IMAGE}Hello"), (f"Hello {IMAGE}!", f"Hello {IMAGE}!")):
        built = builder.build(PromptRequest(text=prompt, images=(file,)))
        assert builder.tokenizer.backend.decode(built.input_ids, skip_special_tokens=False) == places


def test_what_is_refused(builder: PromptBuilder) -> None:
    file, _ = png(8, 8, 1)
    with pytest.raises(RequestError, match="takes no videos"):
        asked(builder, {"type": "video_url", "video_url": {"url": ""}}, files=(file,))
    with pytest.raises(RequestError, match="no options of images") as refused:
        asked(builder, PICTURE, files=(file,), mm_processor_kwargs={"max_pixels": 10_000})
    assert refused.value.param == "mm_processor_kwargs"
    images = builder.images
    assert images is not None
    images.options = replace(OPTIONS, limits=ImageLimits(max_pixels=100))
    with pytest.raises(RequestError, match=r"more than 100 pixels together"):
        asked(builder, PICTURE, PICTURE, files=(file, file))


def test_a_spelled_token_is_text(builder: PromptBuilder) -> None:
    file, _ = png(8, 8, 1)
    built = asked(builder, text("<|image_pad|>"), PICTURE, files=(file,))
    assert built.input_ids.count(builder.tokenizer.token_id("<|image_pad|>") or -1) == 1


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}{{ message.content }}{% endfor %}",
        "{{ raise_exception('no images') if messages[0].content is not string }}{{ messages[0].content }}",
    ],
)
def test_a_template_without_parts_stops_the_start(qwen3_tokenizer_dir: Path, template: str) -> None:
    with pytest.raises(ValueError, match="the chat template"):
        RawImages(ChatTokenizer.load(qwen3_tokenizer_dir, template), OPTIONS)
