# SPDX-License-Identifier: Apache-2.0
"""Outlines of the shapes that the pictures are made of."""

import math
from collections.abc import Callable
from random import Random

Point = tuple[float, float]
# Points of a closed outline within the unit circle, y downwards.
Outline = list[Point]


def _regular(corners: int, turn: float = -90.0) -> Outline:
    angles = [math.radians(turn + 360 * index / corners) for index in range(corners)]
    return [(math.cos(angle), math.sin(angle)) for angle in angles]


def _box(aspect: float) -> Outline:
    half = 1 / math.hypot(aspect, 1)
    return [(-aspect * half, -half), (aspect * half, -half), (aspect * half, half), (-aspect * half, half)]


def _star(rng: Random) -> Outline:
    inner = rng.uniform(0.38, 0.5)
    return [(x * (inner if index % 2 else 1), y * (inner if index % 2 else 1)) for index, (x, y) in _numbered(10)]


def _numbered(corners: int) -> list[tuple[int, Point]]:
    return list(enumerate(_regular(corners)))


def _cross(rng: Random) -> Outline:
    arm, end = rng.uniform(0.22, 0.38), 0.92
    quarter = [(arm, -end), (arm, -arm), (end, -arm)]
    outline: Outline = []
    for _ in range(4):
        outline += quarter
        quarter = [(-y, x) for x, y in quarter]
    return outline


def _heart(rng: Random) -> Outline:
    angles = [2 * math.pi * index / 40 for index in range(40)]
    curve = [(16 * math.sin(a) ** 3, -_heart_height(a)) for a in angles]
    return [(x / 17.5, (y - 2.5) / 17.5) for x, y in curve]


def _heart_height(angle: float) -> float:
    terms = ((13, 1), (-5, 2), (-2, 3), (-1, 4))
    return sum(factor * math.cos(order * angle) for factor, order in terms)


def _diamond(rng: Random) -> Outline:
    width = rng.uniform(0.55, 0.8)
    return [(0, -1), (width, 0), (0, 1), (-width, 0)]


def _oval(rng: Random) -> Outline:
    height = rng.uniform(0.45, 0.65)
    return [(x, y * height) for x, y in _regular(40)]


def _arrow(rng: Random) -> Outline:
    """An arrow that points to the right."""
    shaft, wing, neck = rng.uniform(0.12, 0.22), rng.uniform(0.4, 0.6), rng.uniform(0.1, 0.4)
    return [(1, 0), (neck, wing), (neck, shaft), (-0.95, shaft), (-0.95, -shaft), (neck, -shaft), (neck, -wing)]


# The outline of each shape, and the largest rotation in degrees at which it keeps its name.
_SHAPES: dict[str, tuple[Callable[[Random], Outline], float]] = {
    "circle": (lambda rng: _regular(40), 0),
    "square": (lambda rng: _box(1), 14),
    "triangle": (lambda rng: _regular(3), 180),
    "star": (_star, 36),
    "rectangle": (lambda rng: _box(rng.uniform(1.7, 2.6)), 14),
    "pentagon": (lambda rng: _regular(5), 36),
    "hexagon": (lambda rng: _regular(6), 30),
    "cross": (_cross, 14),
    "heart": (_heart, 20),
    "diamond": (_diamond, 10),
    "oval": (_oval, 180),
    "arrow": (_arrow, 8),
}
SHAPES = tuple(_SHAPES)
DIRECTIONS = {"right": 0.0, "down": 90.0, "left": 180.0, "up": 270.0}


def outline(rng: Random, shape: str, direction: str | None) -> Outline:
    """Draw a variation of the shape, rotated. direction: where an arrow points, None for other shapes."""
    draw, freedom = _SHAPES[shape]
    turn = rng.uniform(-freedom, freedom) if rng.random() < 0.6 else 0.0
    if shape == "rectangle" and rng.random() < 0.4:
        turn += 90
    return _turned(draw(rng), turn + (DIRECTIONS[direction] if direction else 0.0))


def _turned(points: Outline, degrees: float) -> Outline:
    if not degrees:
        return points
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(x * cos - y * sin, x * sin + y * cos) for x, y in points]
