# SPDX-License-Identifier: Apache-2.0
"""Questions about positions, sizes and directions in one picture, each with a single correct answer."""

from random import Random

from models.demo_vlm.training.phrases import REGIONS, a, capital, middle, name, region
from models.demo_vlm.training.scenes import Scene, Thing
from models.demo_vlm.training.skills import Pairs, Question, picture, unique


def position(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask in which part of the picture something is."""
    if scene.words and (not scene.things or rng.random() < 0.3):
        where = region(scene, *middle(scene.words[0]))
        if where is None or len(scene.words) > 1:
            return None
        text = rng.choice(("Where is the text?", "Where is the word?", f"Where is the text in the {picture(rng)}?"))
        return Question("position", text, f"The text is {REGIONS[where]}.")
    named = [(called, thing) for called, thing in unique(scene.things) if region(scene, thing.x, thing.y)]
    if not named:
        return None
    called, thing = rng.choice(named)
    where = region(scene, thing.x, thing.y)
    assert where is not None  # nosec B101 # narrows a type, checks no input
    only_one_there = sum(_near(scene, other, where) for other in scene.things) == 1 and not scene.words
    if only_one_there and rng.random() < 0.35:
        text = rng.choice((f"What is {REGIONS[where]}?", f"What is {REGIONS[where]} of the {picture(rng)}?"))
        return Question("position", text, f"{capital(a(name(thing)))} is {REGIONS[where]}.")
    text = rng.choice(
        (
            f"Where is the {called}?",
            f"Where is the {called} in the {picture(rng)}?",
            f"In which part of the {picture(rng)} is the {called}?",
            f"What is the position of the {called}?",
        )
    )
    return Question("position", text, f"The {called} is {REGIONS[where]}.")


def _near(scene: Scene, thing: Thing, where: tuple[int, int]) -> bool:
    """Whether a person might say that the thing is there."""
    x, y = 3 * thing.x / scene.width - where[0] - 0.5, 3 * thing.y / scene.height - where[1] - 0.5
    reach_x, reach_y = 3 * thing.size / scene.width, 3 * thing.size / scene.height
    return abs(x) < 0.6 + reach_x and abs(y) < 0.6 + reach_y


_SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


def side(scene: Scene, first: Thing, second: Thing) -> str | None:
    """Find the side of `second` that the first thing is on; None if two sides are possible."""
    across, down = (first.x - second.x) / scene.width, (first.y - second.y) / scene.height
    if abs(across) > max(0.12, 1.6 * abs(down)):
        return "left" if across < 0 else "right"
    if abs(down) > max(0.12, 1.6 * abs(across)):
        return "above" if down < 0 else "below"
    return None


def relation(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask on which side of another thing a thing is."""
    named = unique(scene.things)
    rng.shuffle(named)
    for called, first in named:
        for other, second in named:
            where = side(scene, first, second) if first is not second else None
            if where:
                return _related(rng, scene, called, other, first, where)
    return None


def _related(rng: Random, scene: Scene, called: str, other: str, first: Thing, where: str) -> Question:
    kind = rng.random()
    if kind < 0.5:
        asked_side = rng.choice((where, _OPPOSITE[where]))
        wording = _SIDES[asked_side] if rng.random() < 0.7 or asked_side in ("above", "below") else f"{asked_side} of"
        text = f"Is the {called} {wording} the {other}?"
        yes = "Yes" if asked_side == where else "No"
        return Question("relation", text, f"{yes}, the {called} is {_SIDES[where]} the {other}.", yes)
    if kind < 0.7 and len(scene.things) == 2:
        return Question(
            "relation",
            f"What is {_SIDES[where]} the {other}?",
            f"{capital(a(name(first)))} is {_SIDES[where]} the {other}.",
        )
    if kind < 0.85 and where in ("left", "right"):
        text = f"Is the {called} to the left or to the right of the {other}?"
    elif kind < 0.85:
        text = f"Is the {called} above or below the {other}?"
    else:
        text = rng.choice(
            (f"Where is the {called} relative to the {other}?", f"Where is the {called} compared to the {other}?")
        )
    return Question("relation", text, f"The {called} is {_SIDES[where]} the {other}.")


def extreme(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the largest or the smallest thing."""
    things = sorted(scene.things, key=lambda thing: thing.size)
    largest = rng.random() < 0.5
    if len(things) < 2:
        return None
    chosen, next_one = (things[-1], things[-2]) if largest else (things[0], things[1])
    if max(chosen.size, next_one.size) < 1.3 * min(chosen.size, next_one.size):
        return None
    word = rng.choice(("largest", "biggest") if largest else ("smallest",))
    text = rng.choice(
        (
            f"What is the {word} shape?",
            f"Which shape is the {word}?",
            f"Which object is the {word}?",
            f"What is the {word} object?",
        )
    )
    return Question("size", text, f"The {word} shape is the {name(chosen)}.")


def direction(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask where the arrow points."""
    arrows = [thing for thing in scene.things if thing.shape == "arrow"]
    if len(arrows) != 1:
        return None
    text = rng.choice(
        (
            "Which direction does the arrow point?",
            "Where does the arrow point?",
            "In which direction is the arrow pointing?",
        )
    )
    phrase = {"left": "to the left", "right": "to the right"}.get(str(arrows[0].direction), arrows[0].direction)
    return Question("direction", text, f"The arrow points {phrase}.", str(arrows[0].direction))
