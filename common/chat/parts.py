# SPDX-License-Identifier: Apache-2.0
"""Image and video parts of chat messages, and the pictures made from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class MediaPart:
    """The place of one element of the `images` tensor. detail: "low" requests the cheapest form of an image."""

    kind: Kind = "image"
    detail: str = "auto"


# A message's content: texts and media in the client's order.
Content = Sequence[str | MediaPart]


@dataclass(frozen=True, slots=True)
class Placed:
    """A message's text with the family's markers, and the parts that the markers represent, in order."""

    text: str
    parts: tuple[MediaPart, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, or one frame of a video, cut into the tiles of its family.

    pixels: uint8 [tiles, height, width, 3], RGB. Each marker in the prompt becomes one run of image tokens.
    runs: tokens of each run. extra_ids: a number above 0 for each run, equal only for equal pixels, by which the
    engine's prefix cache distinguishes images.
    """

    pixels: NDArray[np.uint8]
    runs: tuple[int, ...]
    extra_ids: tuple[int, ...]
