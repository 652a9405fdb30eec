# SPDX-License-Identifier: Apache-2.0
"""Pictures of different sizes as one tensor of bytes: the contract's input `multimodal` for the engine `llmapi`.

A header of int32 has the number of pictures, then height and width of each; their pixels follow.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_NUMBER = np.dtype("<i4")


def pack(pictures: Sequence[Pixels]) -> list[memoryview]:
    """The bytes of pictures, each uint8 [height, width, 3], RGB, in pieces to put one after the other."""
    sizes = [side for picture in pictures for side in picture.shape[:2]]
    header = np.array([len(pictures), *sizes], _NUMBER).tobytes()
    return [memoryview(header), *(np.ascontiguousarray(picture).data for picture in pictures)]


def unpack(packed: Pixels) -> list[Pixels]:
    """The pictures in bytes of one dimension, as views of them. Raises ValueError if the bytes are damaged."""
    width = _NUMBER.itemsize
    count = int(packed[:width].view(_NUMBER)[0]) if len(packed) >= width else 0
    start = (1 + 2 * count) * width
    if count < 1 or start > len(packed):
        raise ValueError("the header is damaged")
    sizes = packed[width:start].view(_NUMBER).reshape(count, 2).astype(np.int64)
    if sizes.min() < 1 or start + 3 * int(sizes.prod(axis=1).sum()) != len(packed):
        raise ValueError("the sizes do not fit the bytes")
    pictures = []
    for rows, columns in sizes.tolist():
        end = start + 3 * rows * columns
        pictures.append(packed[start:end].reshape(rows, columns, 3))
        start = end
    return pictures
