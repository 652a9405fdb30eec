# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video a model sees: how many, by the request and the operator, and at which places."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocessing.images.decode import media_error


@dataclass(frozen=True, slots=True)
class VideoSource:
    """What a video's packets say of it. frames: those that are shown. fps: frames per second, above 0."""

    frames: int
    fps: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.fps


# The indices of the frames to decode, in rising order; an index may repeat.
Sampling = Callable[[VideoSource], Sequence[int]]


def frame_count(source: VideoSource, asked: Mapping[str, Any], default: int, maximum: int) -> int:
    """The number of frames to sample, as vLLM's loader counts: the smaller one of `num_frames` and of what `fps` gives.

    asked: the options of common.chat.parts.MediaRequest.sampling. default: if it is empty. maximum: the operator's,
    which is the number for an `fps` that would give more. Raises RequestError for other frames beyond it.
    """
    if not asked:
        return default
    number: int = asked.get("num_frames", -1)
    fps: float = asked.get("fps", -1)
    count = source.frames if number == -1 else min(number, source.frames)
    if fps != -1:
        return max(1, min(count, math.floor(source.duration * fps), maximum))
    if count > maximum:
        raise media_error(
            f"a video would have {count} frames, above the server's maximum of {maximum} (max_video_frames)"
        )
    return count


def segment_centres(frames: int, count: int) -> list[int]:
    """The index of the frame at the centre of each of `count` equal segments, as InternVL's video example counts."""
    length = (frames - 1) / count
    return [int(length / 2 + round(length * index)) for index in range(count)]


def evenly_spaced(frames: int, count: int) -> list[int]:
    """The indices of `count` frames from the first to the last, as in vLLM's loader; all if there are not so many."""
    return [int(index) for index in np.linspace(0, frames - 1, min(count, frames), dtype=int)]
