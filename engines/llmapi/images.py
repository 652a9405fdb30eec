# SPDX-License-Identifier: Apache-2.0
"""Build prompts with images for TensorRT-LLM's Gemma 3, whose processor takes text instead of ids."""

import re
from pathlib import Path
from typing import Any

from PIL import Image

from common.checkpoint import read_json
from common.errors import RequestError
from engines.engine import Generation

START, SOFT, END, BEGIN = "<start_of_image>", "<image_soft_token>", "<end_of_image>", "<bos>"


class Gemma3Prompts:
    """Turns ids with runs of image tokens back into the text from which the processor makes the same ids."""

    def __init__(self, checkpoint: Path, tokenizer: Any) -> None:
        """Read the checkpoint's image sizes. tokenizer: TensorRT-LLM's, with `encode` and `decode`."""
        config = read_json(checkpoint / "config.json")
        self._size = int(config["vision_config"].get("image_size", 896))
        count = int(config.get("mm_tokens_per_image", 256))
        self._place = re.compile(f"\n\n{START}(?:{SOFT}){{{count}}}{END}\n\n")
        self._tokenizer = tokenizer

    def build(self, generation: Generation) -> dict[str, Any]:
        """Build {"prompt", "multi_modal_data"} of a generation with images.

        Raises RequestError if the images do not match the prompt.
        """
        images = generation.images
        assert images is not None  # nosec B101 # tells the type checker, checks no input
        if images.shape[1:] != (self._size, self._size, 3):
            raise RequestError(
                f"images must be [n, {self._size}, {self._size}, 3], not {list(images.shape)}", param="images"
            )
        text = self._tokenizer.decode(generation.prompt_ids, skip_special_tokens=False)
        if self._tokenizer.encode(text, add_special_tokens=False) != generation.prompt_ids:
            raise RequestError("with images this engine takes ids only as its tokenizer makes them", param="input_ids")
        shortened, places = self._place.subn(START, text)
        if places != len(images) or shortened.count(START) != places or SOFT in shortened:
            raise RequestError(f"{len(images)} images for {places} image places in the prompt", param="images")
        # The processor adds it itself.
        prompt = shortened.removeprefix(BEGIN)
        return {"prompt": prompt, "multi_modal_data": {"image": [Image.fromarray(one.numpy()) for one in images]}}
