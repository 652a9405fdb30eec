# SPDX-License-Identifier: Apache-2.0
"""Generated pictures with the size and compressibility of photographs, each different from all others."""

import io
import random
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

# 4:3 and large: 12 tiles and the thumbnail for InternVL's tiling.
SIZE = (1600, 1200)
QUALITY = 90


def photo(seed: int, size: tuple[int, int] = SIZE) -> bytes:
    """Generate a JPEG file; the same for the same seed."""
    chooser = random.Random(seed)  # nosec B311 # no secret is drawn
    image = _background(size).copy()
    draw = ImageDraw.Draw(image)
    for _ in range(24):
        x, y = chooser.randrange(size[0]), chooser.randrange(size[1])
        radius = chooser.randrange(20, 200)
        colour = tuple(chooser.randrange(256) for _ in range(3))
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


@lru_cache
def _background(size: tuple[int, int]) -> Image.Image:
    """Slow waves and the noise of a sensor."""
    x, y = np.meshgrid(np.linspace(0, 9, size[0]), np.linspace(0, 7, size[1]))
    waves = np.stack([np.sin(x + y), np.cos(x * 0.7), np.sin(y * 1.3 - x)], axis=-1) * 80 + 128
    noise = np.random.default_rng(0).normal(0, 4, waves.shape)
    return Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))
