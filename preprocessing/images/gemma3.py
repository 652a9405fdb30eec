# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 images: resized pictures for the engine, which runs the vision part, as image tokens attend bidirectionally.

Tokens and crops are those of the family's processor in transformers (`Gemma3Processor`, `Gemma3ImageProcessor`).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from common.chat.messages import join_texts
from common.chat.parts import Content, MediaPart, Picture, Placed
from common.checkpoint import Checkpoint, read_json
from common.tokenizer import ChatTokenizer
from preprocessing.images.family import MediaOptions, TiledImages, check_count, extra_id

START, SOFT, END = "<start_of_image>", "<image_soft_token>", "<end_of_image>"
# The processor's text of one picture; the model was trained with the newlines.
WRITTEN = f"\n\n{START}{SOFT}{END}\n\n"

# The processor's defaults for pan and scan: the least aspect ratio, least side of a crop, and most crops.
_MIN_RATIO, _MIN_CROP, _MAX_CROPS = 1.2, 256, 4


class Gemma3Images(TiledImages):
    """Gemma 3: each picture is resized to one square, with crops if pan and scan is on."""

    tensor = "engine_images"
    marker = START
    # No client can write it, as the tokens that they spell stay text.
    video_marker = f"{START}{SOFT}"
    spelled = (START,)
    tokens = (START, SOFT, END)
    taken = ("do_pan_and_scan",)

    def __init__(
        self, checkpoint: Checkpoint, tokenizer: ChatTokenizer, options: MediaOptions, config: dict[str, Any]
    ) -> None:
        """Create the family. config: the checkpoint's config.json. Raises ValueError if the image token is missing."""
        token_id = tokenizer.token_id(SOFT)
        if token_id is None:
            raise ValueError(f"tokenizer: '{checkpoint.path}' has no token {SOFT}")
        super().__init__(options, token_id)
        processor = read_json(checkpoint.path / "preprocessor_config.json")
        size = processor.get("size") or {}
        side = int(config["vision_config"].get("image_size", 896))
        self._size = (int(size.get("width", side)), int(size.get("height", side)))
        self._filter = Image.Resampling(processor.get("resample", Image.Resampling.BILINEAR))
        self._tokens = int(config.get("mm_tokens_per_image", 256))

    def place(self, content: Content, where: str) -> Placed:
        parts = tuple(part for part in content if isinstance(part, MediaPart))
        pieces: list[str] = []
        after_text = False
        for part in content:
            if isinstance(part, str):
                # Next to images the template trims each text.
                text = part.strip() if parts else part
                pieces.append(f"\n{text}" if after_text else text)
            else:
                pieces.append(f"{self.video_marker}\n" if part.kind == "video" else START)
            after_text = isinstance(part, str)
        return Placed("".join(pieces), parts)

    def place_spelled(self, content: Content, where: str) -> Placed:
        text = join_texts(content)
        return Placed(text, (MediaPart(),) * text.count(START))

    def finish(self, prompt: str, pictures: Sequence[Picture]) -> str:
        before, *after = super().finish(prompt, pictures).split(START)
        check_count(len(after), len(pictures), START, "messages")
        return before + "".join(_written(picture) + text for picture, text in zip(pictures, after, strict=True))

    def _cut(self, image: Image.Image, part: MediaPart, options: Mapping[str, Any], digest: hashlib.blake2b) -> Picture:
        crops = options.get("do_pan_and_scan", self.options.pan_and_scan)
        cut = crops and part.kind == "image" and part.detail != "low"
        pieces = [image, *(_crops(image) if cut else ())]
        pixels = np.stack([np.asarray(piece.resize(self._size, self._filter)) for piece in pieces])
        extra_ids = tuple(extra_id(digest, index) for index in range(len(pieces)))
        return Picture(pixels, (self._tokens,) * len(pieces), extra_ids)


def _written(picture: Picture) -> str:
    crops = len(picture.runs) - 1
    if not crops:
        return WRITTEN
    several = " ".join([WRITTEN] * crops)
    return f"Here is the original image {WRITTEN} and here are some crops to help you see better {several}"


def _crops(image: Image.Image) -> list[Image.Image]:
    """Equal crops along the longer side; none if the image is nearly square or they would be too small."""
    long, short = max(image.size), min(image.size)
    if long / short < _MIN_RATIO:
        return []
    count = min(max(2, min(int(long // _MIN_CROP), int(long / short + 0.5))), _MAX_CROPS)
    if image.width >= image.height:
        columns, rows = count, 1
    else:
        columns, rows = 1, count
    width, height = math.ceil(image.width / columns), math.ceil(image.height / rows)
    if min(width, height) < _MIN_CROP:
        return []
    corners = product(range(0, columns * width, width), range(0, rows * height, height))
    boxes = [(x, y, min(x + width, image.width), min(y + height, image.height)) for x, y in corners]
    return [image.crop(box) for box in boxes]
