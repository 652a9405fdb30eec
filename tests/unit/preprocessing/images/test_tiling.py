# SPDX-License-Identifier: Apache-2.0
"""Tiles are bit for bit those of a plain Pillow and NumPy reference."""

import random

import numpy as np
import pytest
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from preprocessing.images import bicubic, tiling


def reference_grid(width, height, min_num, max_num, size):
    """The rule in the words of its specification, without any of the library's shortcuts."""
    candidates = {(i, j) for n in range(min_num, max_num + 1) for i in range(1, n + 1) for j in range(1, n + 1)}
    candidates = sorted((c for c in candidates if min_num <= c[0] * c[1] <= max_num), key=lambda c: c[0] * c[1])
    closest = min(abs(width / height - i / j) for i, j in candidates)
    chosen = None
    for i, j in candidates:
        if abs(width / height - i / j) != closest:
            continue
        if chosen is None or width * height > 0.5 * size * size * i * j:
            chosen = (i, j)
    return chosen


def reference_tiles(image, columns, rows, size, thumbnail):
    """Resize, crop with Pillow one tile after the other."""
    resized = image.resize((size * columns, size * rows), Image.BICUBIC)
    boxes = [(c * size, r * size, (c + 1) * size, (r + 1) * size) for r in range(rows) for c in range(columns)]
    cut = [np.array(resized.crop(box)) for box in boxes]
    if thumbnail and len(cut) != 1:
        cut.append(np.array(image.resize((size, size), Image.BICUBIC)))
    return np.stack(cut)


def picture(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_grids_of_many_sizes():
    chooser = random.Random(3)
    sizes = [(chooser.randint(1, 4000), chooser.randint(1, 4000)) for _ in range(4000)]
    sizes += [(448 * a, 448 * b) for a in range(1, 14) for b in range(1, 14)]
    for width, height in sizes:
        for most in (1, 6, 12):
            assert tiling.grid(width, height, 1, most, 448) == reference_grid(width, height, 1, most, 448)


@pytest.mark.parametrize("seed", range(40))
def test_tiles_bit_for_bit(seed):
    chooser = random.Random(seed)
    width, height = chooser.randint(1, 1500), chooser.randint(1, 1500)
    size, most, thumbnail = (*chooser.choice([(448, 12), (448, 6), (224, 12)]), chooser.random() < 0.8)
    image = picture(width, height, seed)
    columns, rows = tiling.grid(width, height, 1, most, size)
    tiles = tiling.tiles(image, columns, rows, size, thumbnail)
    assert tiles.dtype == np.uint8
    assert np.array_equal(tiles, reference_tiles(image, columns, rows, size, thumbnail))
    assert len(tiles) == tiling.tile_count(columns, rows, thumbnail)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (448, 448, (1, 1)),
        (2000, 2000, (3, 3)),  # every square is as close; the largest that the pixels fill
        (640, 480, (4, 3)),
        (480, 640, (3, 4)),
        (10_000, 10, (12, 1)),
        (1, 1, (1, 1)),
    ],
)
def test_known_grids(width, height, expected):
    assert tiling.grid(width, height, 1, 12, 448) == expected


def test_a_large_image_costs_thirteen_tiles():
    assert len(tiling.tiles(picture(1600, 1200, 0), *tiling.grid(1600, 1200, 1, 12, 448), 448, True)) == 13


def test_the_same_tiles_as_transformers():
    processor = GotOcr2ImageProcessorPil(
        crop_to_patches=True,
        min_patches=1,
        max_patches=12,
        size={"height": 448, "width": 448},
        do_rescale=False,
        do_normalize=False,
    )
    for width, height in [(640, 480), (300, 1000), (1333, 417), (448, 448), (91, 90)]:
        image = picture(width, height, width)
        expected = processor(image, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
        tiles = tiling.tiles(image, *tiling.grid(width, height, 1, 12, 448), 448, True)
        assert np.array_equal(tiles, expected)


def test_any_resize_is_pillows():
    chooser = random.Random(5)
    for seed in range(300):
        width, height, new_width, new_height = (chooser.randint(1, 300) for _ in range(4))
        if seed % 4 == 0:
            width, height = chooser.randint(1, 3), chooser.randint(301, 900)
        image = picture(width, height, seed)
        expected = np.asarray(image.resize((new_width, new_height), Image.BICUBIC))
        assert np.array_equal(bicubic.resize(np.asarray(image), new_width, new_height), expected), image.size


@pytest.mark.parametrize(
    ("pillow", "first"), [((11, 0), (False, False)), ((12, 2), (False, True)), ((13, 0), (True, True))]
)
def test_the_order_of_the_passes_is_the_installed_pillows(monkeypatch, pillow, first):
    monkeypatch.setattr(bicubic, "_PILLOW", pillow)
    assert (bicubic._columns_first(100, 900, 100, 448), bicubic._columns_first(8, 900, 448, 448)) == first
    assert not bicubic._columns_first(8, 900, 448, 900)
