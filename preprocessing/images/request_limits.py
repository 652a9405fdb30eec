# SPDX-License-Identifier: Apache-2.0
"""The operator's limits of what a request may ask of its images and videos (common.chat.media)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.chat.media import PART_OPTIONS, PROCESSOR_OPTIONS, Unit
from common.chat.parts import SCOPES, MediaPart, MediaRequest
from common.checks import PositionError
from preprocessing.images.decode import media_error

# No family makes a token of fewer pixels.
_PIXELS_PER_TOKEN = 256


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for at most.

    frames: of a video. pixels: of an image after it was resized. pieces: of an image. areas: whether the checkpoint's
    processor takes the edges of `size` for numbers of pixels, as those of Qwen-VL and GLM do, and not for sides.
    """

    frames: int
    pixels: int
    pieces: int
    areas: bool = False

    def check(self, asked: MediaRequest, parts: Sequence[MediaPart]) -> None:
        """Raise RequestError naming an option that is above its limit."""
        for name, value in asked.video.items():
            if problem := self._problem(PART_OPTIONS["video"][name].unit, value):
                raise PositionError(f"{asked.video_field}.{name}", problem)
        for name, value in unscoped(asked.processor):
            if problem := self._problem(PROCESSOR_OPTIONS[name.rpartition(".")[2]].unit, value):
                raise PositionError(f"mm_processor_kwargs.{name}", problem)
        for part in parts:
            for name, value in part.options.items():
                if problem := self._problem(PART_OPTIONS[part.kind][name].unit, value):
                    raise media_error(f"{name} {problem}")

    def _problem(self, unit: Unit | None, value: Any) -> str | None:
        if unit is None:
            return None
        if unit == "size":
            return self._size_problem(value)
        limit, option = {
            "frames": (self.frames, "max_video_frames"),
            "pixels": (self.pixels, "max_resized_pixels"),
            "side": (math.isqrt(self.pixels), "the root of max_resized_pixels"),
            "tokens": (self.pixels // _PIXELS_PER_TOKEN, f"max_resized_pixels / {_PIXELS_PER_TOKEN}"),
            "pieces": (self.pieces, "max_tiles"),
        }[unit]
        return f"must be at most {limit} ({option})" if value > limit else None

    def _size_problem(self, size: Mapping[str, int]) -> str | None:
        if size.get("height", 1) * size.get("width", 1) > self.pixels:
            return f"must be at most {self.pixels} pixels (max_resized_pixels)"
        edges = (size[edge] for edge in ("shortest_edge", "longest_edge") if edge in size)
        problems = (self._problem("pixels" if self.areas else "side", edge) for edge in edges)
        return next((f"has an edge that {problem}" for problem in problems if problem), None)


def unscoped(options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options in and outside the scopes, by their positions."""
    for name, value in options.items():
        if name in SCOPES.values():
            yield from ((f"{name}.{inner}", own) for inner, own in value.items())
        else:
            yield name, value
