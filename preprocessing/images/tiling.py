# SPDX-License-Identifier: Apache-2.0
"""InternVL's dynamic tiling: an image becomes a grid of square tiles of similar aspect ratio, and a thumbnail.

The rules are those of `dynamic_preprocess` in the family's published examples. A different grid or filter changes
answers, so tiles equal those of Pillow's bicubic resize bit for bit.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocessing.images import bicubic


def grid(width: int, height: int, min_tiles: int, max_tiles: int, tile: int) -> tuple[int, int]:
    """(columns, rows) of the grid whose aspect ratio is closest to the image's; sizes in pixels.

    Of two equally close grids the larger is taken if the image has more than half as many pixels as its tiles.
    """
    shape = width / height
    best, best_difference = (1, 1), float("inf")
    for columns, rows in _grids(min_tiles, max_tiles):
        difference = abs(shape - columns / rows)
        if difference < best_difference:
            best, best_difference = (columns, rows), difference
        elif difference == best_difference and width * height > 0.5 * tile * tile * columns * rows:
            best = (columns, rows)
    return best


def tile_count(columns: int, rows: int, thumbnail: bool) -> int:
    """The number of tiles of a grid; if there are several, the thumbnail is one more."""
    count = columns * rows
    return count + 1 if thumbnail and count > 1 else count


def tiles(image: Image.Image, columns: int, rows: int, tile: int, thumbnail: bool) -> NDArray[np.uint8]:
    """uint8 [tiles, tile, tile, 3] of an RGB image: the grid row by row, then the thumbnail."""
    cut = np.empty((tile_count(columns, rows, thumbnail), tile, tile, 3), np.uint8)
    pixels = np.asarray(image)
    resized = bicubic.resize(pixels, columns * tile, rows * tile).reshape(rows, tile, columns, tile, 3)
    cut[: columns * rows].reshape(rows, columns, tile, tile, 3)[:] = resized.swapaxes(1, 2)
    if len(cut) > columns * rows:
        cut[-1] = bicubic.resize(pixels, tile, tile)
    return cut


@lru_cache
def _grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """(columns, rows) of every grid of min_tiles to max_tiles tiles, small ones first."""
    sides = range(1, max_tiles + 1)
    found = [(columns, rows) for columns in sides for rows in sides if min_tiles <= columns * rows <= max_tiles]
    return tuple(sorted(found, key=lambda pair: pair[0] * pair[1]))
