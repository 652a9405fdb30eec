# SPDX-License-Identifier: Apache-2.0
"""Pillow's bicubic resize of RGB pixels, bit for bit, in a third of its time: a picture's resize is most of its cost.

As Pillow's Resample.c: a pass along rows and one along columns, each with weights of 22 fractional bits and rounded
to 8 bits. Pillow computes pixel by pixel; here numba compiles loops that a CPU's vector units take 64 pixels of.
"""

import math
from collections.abc import Callable
from functools import lru_cache, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import PIL
from numba import njit, types
from numpy.typing import NDArray

_BITS = 22
_HALF = 1 << (_BITS - 1)
# Rows that the pass along rows takes at once, one in each lane.
_LANES = 64
_PILLOW = tuple(map(int, PIL.__version__.split(".")[:2]))

Pixels = NDArray[np.uint8]


class Weights(NamedTuple):
    """For each output pixel of a line: the first input pixel that counts, how many do, and their weights."""

    first: NDArray[np.int64]
    taps: NDArray[np.int64]
    weight: NDArray[np.int32]


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """uint8 [height, width, 3] of uint8 [any, any, 3]; both C-contiguous. The input itself where nothing changes."""
    if _columns_first(pixels.shape[1], pixels.shape[0], width, height):
        return _wide(_high(pixels, height), width)
    return _high(_wide(pixels, width), height)


def _columns_first(width: int, height: int, new_width: int, new_height: int) -> bool:
    """Which pass comes first, by the Pillow that is installed: each rounds, so that the order shows."""
    if new_height >= height:
        return False
    if _PILLOW >= (13,):
        return height - new_height > 2 * (width - new_width)
    return _PILLOW >= (12, 2) and height > 100 * width


def _wide(pixels: Pixels, width: int) -> Pixels:
    rows, columns, _ = pixels.shape
    if columns == width:
        return pixels
    wide = np.empty((rows, width, 3), np.uint8)
    _along_rows(pixels.reshape(rows, -1), *weights(columns, width), wide.reshape(rows, -1))
    return wide


def _high(pixels: Pixels, height: int) -> Pixels:
    rows, columns, _ = pixels.shape
    if rows == height:
        return pixels
    high = np.empty((height, columns, 3), np.uint8)
    _along_columns(pixels.reshape(rows, -1), *weights(rows, height), high.reshape(height, -1))
    return high


@lru_cache(maxsize=64)
def weights(size: int, new_size: int) -> Weights:
    """The weights of a line of `size` pixels for one of `new_size`; where it shrinks, the filter is as much wider."""
    scale = size / new_size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    first, taps = np.zeros(new_size, np.int64), np.zeros(new_size, np.int64)
    weight = np.zeros((new_size, math.ceil(support) * 2 + 1), np.int32)
    for index in range(new_size):
        centre = (index + 0.5) * scale
        start, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
        exact = [_cubic((pixel - centre + 0.5) * (1.0 / stretch)) for pixel in range(start, end)]
        # Not by `sum`, which rounds otherwise from Python 3.12 on.
        total = reduce(add, exact)
        first[index], taps[index] = start, end - start
        # Rounded to the nearest, halves away from zero.
        weight[index, : end - start] = [
            int(math.copysign(0.5, value) + value / total * (1 << _BITS)) for value in exact
        ]
    return Weights(first, taps, weight)


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2.0 else 0.0


def _compiled(signature: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile at import, once for a machine; each time where nothing can be kept on its disks."""

    def compile_(function: Callable[..., None]) -> Callable[..., None]:
        settings: dict[str, Any] = {"nogil": True}
        try:
            compiled: Callable[..., None] = njit(signature, cache=True, **settings)(function)
        except RuntimeError:
            compiled = njit(signature, **settings)(function)
        return compiled

    return compile_


# pixels, first, taps, weight, out; pixels and out with a row's values one after the other.
_SIGNATURE = types.void(
    types.Array(types.uint8, 2, "C", readonly=True),
    *(types.Array(types.int64, 1, "C"),) * 2,
    *(types.Array(types.int32, 2, "C"), types.Array(types.uint8, 2, "C")),
)


@_compiled(_SIGNATURE)
def _along_rows(pixels: Pixels, first: Any, taps: Any, weight: Any, out: Pixels) -> None:
    """[rows, columns * 3] -> [rows, new columns * 3]. _LANES rows at a time, turned so that they lie side by side."""
    size, new_size = pixels.shape[1], out.shape[1]
    turned = np.empty((size, _LANES), np.uint8)
    result = np.empty((new_size, _LANES), np.uint8)
    sums = np.empty(_LANES, np.int32)
    for top in range(0, pixels.shape[0], _LANES):
        rows = min(_LANES, pixels.shape[0] - top)
        for lane in range(rows):
            row = pixels[top + lane]
            for index in range(size):
                turned[index, lane] = row[index]
        for index in range(new_size):
            column, channel = index // 3, index % 3
            for lane in range(_LANES):
                sums[lane] = _HALF
            for tap in range(taps[column]):
                factor = weight[column, tap]
                values = turned[(first[column] + tap) * 3 + channel]
                for lane in range(_LANES):
                    sums[lane] += np.int32(values[lane]) * factor
            for lane in range(_LANES):
                result[index, lane] = min(max(sums[lane] >> _BITS, 0), 255)
        for lane in range(rows):
            row = out[top + lane]
            for index in range(new_size):
                row[index] = result[index, lane]


@_compiled(_SIGNATURE)
def _along_columns(pixels: Pixels, first: Any, taps: Any, weight: Any, out: Pixels) -> None:
    """[rows, values] -> [new rows, values]."""
    size = pixels.shape[1]
    sums = np.empty(size, np.int32)
    for row in range(out.shape[0]):
        for index in range(size):
            sums[index] = _HALF
        for tap in range(taps[row]):
            factor = weight[row, tap]
            values = pixels[first[row] + tap]
            for index in range(size):
                sums[index] += np.int32(values[index]) * factor
        line = out[row]
        for index in range(size):
            line[index] = min(max(sums[index] >> _BITS, 0), 255)
