# SPDX-License-Identifier: Apache-2.0
"""Image and video parts of chat messages, and pictures as the models take them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class MediaPart:
    """What stands for one element of the `images` tensor. detail: "low" asks for the cheapest form of an image."""

    kind: Kind = "image"
    detail: str = "auto"


# A message's content: texts and media in the order in which the client wrote them.
Content = Sequence[str | MediaPart]


@dataclass(frozen=True, slots=True)
class Placed:
    """A message's text with the family's markers in it, and the parts that they stand for, in their order."""

    text: str
    parts: tuple[MediaPart, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, or one frame of a video, cut as its family wants it.

    pixels: uint8 [pieces, height, width, 3], RGB. Each marker in the prompt becomes one run of image tokens:
    runs: tokens of each run. extra_ids: for each run a number above 0, equal only for equal pixels; the engine's
    prefix cache tells images apart by it.
    """

    pixels: NDArray[np.uint8]
    runs: tuple[int, ...]
    extra_ids: tuple[int, ...]
