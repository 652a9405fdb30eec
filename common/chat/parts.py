# SPDX-License-Identifier: Apache-2.0
"""Image and video parts of chat messages, and the pictures made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["image", "video"]
# The options that set which frames of a video are sampled.
SAMPLED = ("num_frames", "fps")
# The arguments of a processor for one kind are in an object of this name, or beside it for all kinds.
SCOPES: Mapping[Kind, str] = {"image": "images_kwargs", "video": "videos_kwargs"}


@dataclass(frozen=True, slots=True)
class MediaPart:
    """The place of one element of the `images` tensor.

    detail: "low" requests the cheapest form of an image. options: what the part itself asks for, those of
    common.chat.media.PART_OPTIONS that it gives.
    """

    kind: Kind = "image"
    detail: str = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MediaRequest:
    """What a request asks of all its images and videos, read by common.chat.media; a part's own options come first.

    processor: arguments of the model's processor (`mm_processor_kwargs`). video: "num_frames" and "fps" to sample, each
    above 0, or -1 for all frames. video_field: where they were given, for errors.
    """

    processor: Mapping[str, Any] = field(default_factory=dict)
    video: Mapping[str, Any] = field(default_factory=dict)
    video_field: str = "media_io_kwargs.video"

    def sampling(self, part: MediaPart) -> Mapping[str, Any]:
        """The "num_frames" and "fps" of one video; as in vLLM, one that the part gives replaces both."""
        own = {name: part.options[name] for name in SAMPLED if name in part.options}
        return own or self.video

    def flat_options(self, part: MediaPart) -> Mapping[str, Any]:
        """The arguments of the model's processor for one image or video, without scopes."""
        shared = {name: value for name, value in self.processor.items() if name not in SCOPES.values()}
        own = {name: value for name, value in part.options.items() if name not in SAMPLED}
        return {**shared, **self.processor.get(SCOPES[part.kind], {}), **own}


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
    engine's prefix cache distinguishes images. frame: the number of a frame among those of its video, counted from 1.
    """

    pixels: NDArray[np.uint8]
    runs: tuple[int, ...]
    extra_ids: tuple[int, ...]
    frame: int = 0
