# SPDX-License-Identifier: Apache-2.0
"""The base of families whose images the chat template places, in its own form (common.chat.content_form)."""

from PIL import Image

from common.chat.content_form import marked_text
from common.chat.parts import Content, MediaPart, Placed
from preprocessing.images.family import ImageFamily

# The size in which OpenAI's models see a picture of low detail, in pixels.
_LOW_DETAIL = (512, 512)


class MarkedImages(ImageFamily):
    """A family whose images stand in messages as marks, and go to the engine as bytes."""

    tensor = "multimodal"

    def place(self, content: Content, where: str) -> Placed:
        return Placed(marked_text(content), tuple(part for part in content if isinstance(part, MediaPart)))


def shrink_to_low_detail(image: Image.Image) -> None:
    """Make the image as small as a request for low detail has it; one that is smaller stays as it is."""
    image.thumbnail(_LOW_DETAIL, Image.Resampling.BICUBIC)
