# SPDX-License-Identifier: Apache-2.0
"""English phrases for the contents of a scene."""

from collections.abc import Sequence
from itertools import pairwise

from models.demo_vlm.training.scenes import Scene, Thing, Word

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ORDINALS = ("first", "second", "third")
_PLURALS = {"cross": "crosses"}
# Limits of the three columns (or rows) of a picture; a point between two of them is in neither.
_LOW, _MIDDLE_START, _MIDDLE_END, _HIGH = 0.37, 0.4, 0.6, 0.63
REGIONS = {
    (0, 0): "in the top left corner",
    (1, 0): "at the top",
    (2, 0): "in the top right corner",
    (0, 1): "on the left side",
    (1, 1): "in the center",
    (2, 1): "on the right side",
    (0, 2): "in the bottom left corner",
    (1, 2): "at the bottom",
    (2, 2): "in the bottom right corner",
}


def a(noun: str) -> str:
    """Add the indefinite article to a noun phrase."""
    return f"an {noun}" if noun[0] in "aeio" else f"a {noun}"


def plural(shape: str) -> str:
    """The plural of a shape's name."""
    return _PLURALS.get(shape, f"{shape}s")


def counted(count: int, noun: str) -> str:
    """Count a noun: `three circles`, `one circle`, `no circles`."""
    *before, last = noun.split(" ")
    return " ".join([NUMBERS[count], *before, last if count == 1 else plural(last)])


def name(thing: Thing) -> str:
    """Colour and shape of a thing: `red circle`."""
    return f"{thing.color} {thing.shape}"


def listed(phrases: Sequence[str]) -> str:
    """Join phrases with commas and `and`."""
    if len(phrases) < 2:
        return "".join(phrases)
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


def region(scene: Scene, x: float, y: float) -> tuple[int, int] | None:
    """Find the (column, row) of the nine parts of the picture that the point is clearly in, or None."""
    column, row = _third(x / scene.width), _third(y / scene.height)
    return None if column is None or row is None else (column, row)


def _third(share: float) -> int | None:
    if share < _LOW:
        return 0
    if share > _HIGH:
        return 2
    return 1 if _MIDDLE_START < share < _MIDDLE_END else None


def middle(word: Word) -> tuple[float, float]:
    """The centre of a word, in pixels."""
    return word.x + word.width / 2, word.y + word.height / 2


def in_order(scene: Scene) -> list[Thing] | None:
    """Sort the things from left to right; None if two are at about the same position."""
    things = sorted(scene.things, key=lambda thing: thing.x)
    gaps = [right.x - left.x for left, right in pairwise(things)]
    return None if any(gap < 0.06 * scene.width for gap in gaps) else things


def contents(scene: Scene) -> str | None:
    """Describe a picture in a noun phrase; None if that would be long or its order unclear."""
    kinds = {name(thing) for thing in scene.things}
    if len(scene.words) > 1:
        return None
    texts = [f'the text "{word.text}"' for word in scene.words]
    if len(scene.things) > 1 and len(kinds) == 1:
        return listed([counted(len(scene.things), min(kinds)), *texts])
    if len(scene.things) > 4:
        return listed([f"{NUMBERS[len(scene.things)]} shapes", *texts])
    things = in_order(scene)
    return None if things is None else listed([*(a(name(thing)) for thing in things), *texts])
