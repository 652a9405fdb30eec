# SPDX-License-Identifier: Apache-2.0
"""A fake of the code that a checkpoint of Phi-4-multimodal brings: its processor, made of transformers' own.

Copied into tiny checkpoints, which are served with --trust-remote-code. The published code has not been run.
"""

import re
from types import SimpleNamespace
from typing import Any

from transformers import BatchFeature, Phi4MultimodalImageProcessor, ProcessorMixin

IMAGE_TOKEN = "<|endoftext10|>"


class Phi4MMImageProcessor(Phi4MultimodalImageProcessor):
    """transformers' image processor, with the published name of the pixels."""

    model_input_names = ("input_image_embeds", "image_sizes", "image_attention_mask")

    def preprocess(self, images: Any, **kwargs: Any) -> BatchFeature:
        """Returns `input_image_embeds` [pictures, crops, 3, 448, 448] and what else transformers makes."""
        made = dict(super().preprocess(images, **kwargs))
        return BatchFeature({"input_image_embeds": made.pop("image_pixel_values"), **made})


class Phi4MMProcessor(ProcessorMixin):
    """Puts the tokens of each picture in the place of <|image_1|>, <|image_2|> and so on."""

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        # vLLM asks for the rate of audio, which is out of scope here.
        self.audio_processor = SimpleNamespace(sampling_rate=16000)

    def __call__(self, text: Any, images: Any = None, return_tensors: Any = None, **kwargs: Any) -> BatchFeature:
        made = {} if images is None else dict(self.image_processor(images, return_tensors=return_tensors))
        counts = made.pop("num_img_tokens", [])
        texts = [text] if isinstance(text, str) else text
        texts = [re.sub(r"<\|image_(\d+)\|>", lambda n: IMAGE_TOKEN * int(counts[int(n[1]) - 1]), one) for one in texts]
        return BatchFeature({**self.tokenizer(texts, return_tensors=return_tensors), **made})
