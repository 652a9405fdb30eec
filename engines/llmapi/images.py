# SPDX-License-Identifier: Apache-2.0
"""Build prompts with images for TensorRT-LLM, whose processors take text instead of ids."""

import re
from pathlib import Path
from typing import Any

from PIL import Image

from common.checkpoint import read_json
from common.errors import RequestError
from common.raw_pictures import unpack
from engines.engine import Generation

START, SOFT, END, BEGIN = "<start_of_image>", "<image_soft_token>", "<end_of_image>", "<bos>"


class RawPrompts:
    """Prompts of any family with images as they are: its processor puts in the tokens and makes the features."""

    def __init__(self, tokenizer: Any) -> None:
        """Find the text of BOS. tokenizer: TensorRT-LLM's, with `encode` and `decode`."""
        self._tokenizer = tokenizer
        self._begin = tokenizer.decode(tokenizer.encode(""), skip_special_tokens=False)

    def build(self, generation: Generation) -> dict[str, Any]:
        """Build {"prompt", "multi_modal_data"}; raises RequestError for damaged bytes or ids that no text has."""
        assert generation.multimodal is not None  # nosec B101 # tells the type checker, checks no input
        try:
            pictures = unpack(generation.multimodal.take().numpy())
        except ValueError as error:
            raise RequestError(f"'multimodal' is damaged: {error}", param="multimodal") from error
        # The processor adds BOS itself.
        prompt = _text(self._tokenizer, generation.prompt_ids).removeprefix(self._begin)
        return {"prompt": prompt, "multi_modal_data": {"image": [Image.fromarray(one) for one in pictures]}}


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
        shortened, places = self._place.subn(START, _text(self._tokenizer, generation.prompt_ids))
        if places != len(images) or shortened.count(START) != places or SOFT in shortened:
            raise RequestError(f"{len(images)} images for {places} image places in the prompt", param="images")
        # The processor adds it itself.
        prompt = shortened.removeprefix(BEGIN)
        return {"prompt": prompt, "multi_modal_data": {"image": [Image.fromarray(one.numpy()) for one in images]}}


def _text(tokenizer: Any, prompt_ids: list[int]) -> str:
    """The text of ids; raises RequestError if the tokenizer would make others of it."""
    text: str = tokenizer.decode(prompt_ids, skip_special_tokens=False)
    if tokenizer.encode(text, add_special_tokens=False) != prompt_ids:
        raise RequestError("with images this engine takes ids only as its tokenizer makes them", param="input_ids")
    return text
