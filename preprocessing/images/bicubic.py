# SPDX-License-Identifier: Apache-2.0
"""Pillow's bicubic resize of RGB pixels, bit for bit, in a third of the time. Resizing is most of a picture's cost.

As in Pillow's Resample.c, one pass along rows and one along columns, each with weights of 22 fractional bits and
rounded to 8 bits. Pillow computes pixel by pixel; here numba compiles loops over 64 rows for a CPU's vector units.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import PIL
from numba import njit, types
from numpy.typing import NDArray

_BITS = 22
_HALF = 1 << (_BITS - 1)
# Rows that the pass along rows processes at once, one per lane.
_LANES = 64
_PILLOW = tuple(map(int, PIL.__version__.split(".")[:2]))

Pixels = NDArray[np.uint8]


class Weights(NamedTuple):
    """For each output pixel of a line: its first input pixel, the number of input pixels, and their weights."""

    first: NDArray[np.int64]
    taps: NDArray[np.int64]
    weight: NDArray[np.int32]


def resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize uint8 [any, any, 3] to [height, width, 3], both C-contiguous; the input itself if it has that size."""
    if _columns_first(pixels.shape[1], pixels.shape[0], width, height):
        return _pass(_along_rows, 1, _pass(_along_columns, 0, pixels, height), width)
    return _pass(_along_columns, 0, _pass(_along_rows, 1, pixels, width), height)


def _columns_first(width: int, height: int, new_width: int, new_height: int) -> bool:
    """Whether the installed Pillow starts with the columns; each pass rounds, so that the order matters."""
    if new_height >= height:
        return False
    if _PILLOW >= (13,):
        return height - new_height > 2 * (width - new_width)
    return _PILLOW >= (12, 2) and height > 100 * width


def _pass(resample: Callable[..., None], axis: int, pixels: Pixels, new_size: int) -> Pixels:
    """The pixels with `new_size` along an axis; the input itself if it has that size."""
    size = pixels.shape[axis]
    if size == new_size:
        return pixels
    shape = [*pixels.shape]
    shape[axis] = new_size
    out = np.empty(shape, np.uint8)
    resample(pixels.reshape(len(pixels), -1), *_weights(size, new_size), out.reshape(len(out), -1))
    return out


def _weights(size: int, new_size: int) -> Weights:
    """The weights from a line of `size` pixels to one of `new_size`; the filter widens as the line shrinks."""
    first, taps = np.zeros(new_size, np.int64), np.zeros(new_size, np.int64)
    weight = np.zeros((new_size, math.ceil(2.0 * max(size / new_size, 1.0)) * 2 + 1), np.int32)
    _weigh(size, first, taps, weight)
    return Weights(first, taps, weight)


def _compiled(signature: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile at import, once per machine; each time if numba's cache cannot be written."""

    def compile_(function: Callable[..., None]) -> Callable[..., None]:
        settings: dict[str, Any] = {"nogil": True}
        try:
            compiled: Callable[..., None] = njit(signature, cache=True, **settings)(function)
        except RuntimeError:
            compiled = njit(signature, **settings)(function)
        return compiled

    return compile_


_COUNTS, _WEIGHTS, _OUT = (types.int64[::1], types.int32[:, ::1], types.uint8[:, ::1])


@_compiled(types.void(types.int64, _COUNTS, _COUNTS, _WEIGHTS))
def _weigh(size: int, first: Any, taps: Any, weight: Any) -> None:
    """Fill in the weights of a line."""
    scale = size / len(first)
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    exact = np.empty(weight.shape[1], np.float64)
    for index in range(len(first)):
        centre = (index + 0.5) * scale
        start, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
        total = 0.0
        for tap in range(end - start):
            x = abs((start + tap - centre + 0.5) * (1.0 / stretch))
            if x < 1.0:
                exact[tap] = (1.5 * x - 2.5) * x * x + 1.0
            elif x < 2.0:
                exact[tap] = (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5
            else:
                exact[tap] = 0.0
            total += exact[tap]
        first[index], taps[index] = start, end - start
        for tap in range(end - start):
            # Rounded to the nearest, halves away from zero.
            weight[index, tap] = int(math.copysign(0.5, exact[tap]) + exact[tap] / total * (1 << _BITS))


# pixels, first, taps, weight, out; the rows of pixels and out are contiguous.
_PIXELS = types.Array(types.uint8, 2, "C", readonly=True)
_SIGNATURE = types.void(_PIXELS, _COUNTS, _COUNTS, _WEIGHTS, _OUT)


@_compiled(_SIGNATURE)
def _along_rows(pixels: Pixels, first: Any, taps: Any, weight: Any, out: Pixels) -> None:
    """[rows, columns * 3] -> [rows, new columns * 3], _LANES rows at a time, transposed into adjacent lanes."""
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
    """Resample the columns: [rows, values] -> [new rows, values]."""
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
