# SPDX-License-Identifier: Apache-2.0
"""A fake of the code that a checkpoint of Kimi-VL brings: its processor, made of that of transformers for Kimi-K2.5.

Copied into tiny checkpoints, which are served with --trust-remote-code. The published code has not been run.
"""

from typing import Any

from transformers import BatchFeature, Kimi_K25ImageProcessor, ProcessorMixin

IMAGE_TOKEN = "<|media_pad|>"


class KimiVLImageProcessor(Kimi_K25ImageProcessor):
    """Resizes a picture that has too many patches, pads it at the right and below, and cuts it into patches."""

    model_input_names = ("pixel_values", "image_grid_hws")

    def __init__(self, in_token_limit: int = 4096, merge_kernel_size: tuple[int, int] = (2, 2), **kwargs: Any) -> None:
        # The other limit of Kimi-K2.5, of patches along a side, is never met.
        longest = {"max_height": in_token_limit, "max_width": in_token_limit}
        super().__init__(**kwargs | {"max_patches": in_token_limit, "size": longest})
        self.in_token_limit = in_token_limit
        self.merge_kernel_size = list(merge_kernel_size)

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Returns `pixel_values` [patches, 3, side, side] and `image_grid_hws` [pictures, 2]."""
        made = super().preprocess(images, **kwargs)
        return BatchFeature({"pixel_values": made["pixel_values"], "image_grid_hws": made["image_grid_thw"][:, 1:]})


class KimiVLProcessor(ProcessorMixin):
    """Repeats the token of each picture to one for each of its merged patches."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        self.image_token = IMAGE_TOKEN
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def __call__(self, images: Any = None, text: Any = None, return_tensors: Any = None, **kwargs: Any) -> BatchFeature:
        made = {} if images is None else dict(self.image_processor(images, return_tensors=return_tensors))
        texts = [text] if isinstance(text, str) else text
        for grid in made.get("image_grid_hws", ()):
            merged = int(grid.prod()) // 4
            texts = [one.replace(IMAGE_TOKEN, "<one>" * merged, 1) for one in texts]
        texts = [one.replace("<one>", IMAGE_TOKEN) for one in texts]
        return BatchFeature({**self.tokenizer(texts, return_tensors=return_tensors), **made})
