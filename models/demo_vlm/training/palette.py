# SPDX-License-Identifier: Apache-2.0
"""Colours with an undisputed name."""

from random import Random

Rgb = tuple[int, int, int]

# The eleven basic colour terms of English, each with typical values.
COLORS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 20, 20), (200, 0, 0), (230, 40, 40)),
    "orange": ((255, 165, 0), (255, 140, 0), (245, 130, 30)),
    "yellow": ((255, 255, 0), (255, 235, 40), (250, 220, 0)),
    "green": ((0, 128, 0), (0, 200, 0), (0, 255, 0), (40, 160, 60), (50, 205, 50)),
    "blue": ((0, 0, 255), (30, 60, 220), (30, 110, 240), (0, 0, 170)),
    "purple": ((128, 0, 128), (150, 40, 180), (110, 30, 160), (140, 60, 220)),
    "pink": ((255, 192, 203), (255, 105, 180), (255, 150, 190)),
    "brown": ((139, 69, 19), (120, 70, 30), (110, 60, 20)),
    "black": ((0, 0, 0), (20, 20, 20)),
    "white": ((255, 255, 255), (245, 245, 245)),
    "gray": ((128, 128, 128), (150, 150, 150), (110, 110, 110)),
}
_JITTER = 8
# Distance in RGB below which an object is hard to see on its background.
_CONTRAST = 100.0


def shade(rng: Random, name: str) -> Rgb:
    """Draw a value of the named colour, slightly varied in half of the cases."""
    red, green, blue = rng.choice(COLORS[name])
    if rng.random() < 0.5:
        return red, green, blue
    return _jitter(rng, red), _jitter(rng, green), _jitter(rng, blue)


def contrasts(first: Rgb, second: Rgb) -> bool:
    """Whether one colour is clearly visible on the other."""
    return sum((a - b) ** 2 for a, b in zip(first, second, strict=True)) > _CONTRAST**2


def _jitter(rng: Random, value: int) -> int:
    return min(max(value + rng.randint(-_JITTER, _JITTER), 0), 255)
