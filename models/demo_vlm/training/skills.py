# SPDX-License-Identifier: Apache-2.0
"""Questions about colours, shapes, numbers and words in one picture, each with a single correct answer."""

from collections import Counter
from dataclasses import dataclass
from random import Random

from models.demo_vlm.training.palette import COLORS
from models.demo_vlm.training.phrases import NUMBERS, a, contents, counted, name, plural
from models.demo_vlm.training.scenes import Scene, Thing
from models.demo_vlm.training.shapes import SHAPES


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answer. skill: what it tests. short: the answer in one word, or "" if there is none."""

    skill: str
    text: str
    answer: str
    short: str = ""


# (colour, shape) pairs that a question may ask for even if the picture lacks them.
Pairs = tuple[tuple[str, str], ...]
_PICTURES = ("picture", "picture", "image", "image", "photo")


def picture(rng: Random) -> str:
    """Draw a word for the picture."""
    return rng.choice(_PICTURES)


def unique(things: tuple[Thing, ...]) -> list[tuple[str, Thing]]:
    """List (name, thing) for each name that fits exactly one thing: by shape, colour or both."""
    shapes = Counter(thing.shape for thing in things)
    colors = Counter(thing.color for thing in things)
    pairs = Counter(name(thing) for thing in things)
    found: list[tuple[str, Thing]] = []
    for thing in things:
        if pairs[name(thing)] == 1:
            found.append((name(thing), thing))
        if shapes[thing.shape] == 1:
            found.append((thing.shape, thing))
        if colors[thing.color] == 1:
            found.append((f"{thing.color} shape", thing))
    return found


def color(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the colour of a thing."""
    if len({thing.color for thing in scene.things}) == 1 and len(scene.things) == 1 and rng.random() < 0.3:
        thing = scene.things[0]
        text = rng.choice(("What color is it?", "What color is the shape?", "Which color does the object have?"))
        return Question("color", text, f"It is {thing.color}.", thing.color)
    named = [(called, thing) for called, thing in unique(scene.things) if called == thing.shape]
    if not named:
        return None
    called, thing = rng.choice(named)
    text = rng.choice(
        (
            f"What color is the {called}?",
            f"What is the color of the {called}?",
            f"Which color does the {called} have?",
            f"Tell me the color of the {called}.",
        )
    )
    return Question("color", text, f"The {called} is {thing.color}.", thing.color)


def shape(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the shape of a thing."""
    if len(scene.things) == 1 and rng.random() < 0.6:
        thing = scene.things[0]
        where = picture(rng)
        text = rng.choice(
            (
                f"What shape is in the {where}?",
                "What shape is this?",
                f"Which shape is shown in the {where}?",
                "What shape do you see?",
                f"Name the shape in the {where}.",
            )
        )
        return Question("shape", text, f"It is {a(thing.shape)}.", thing.shape)
    named = [(called, thing) for called, thing in unique(scene.things) if called == f"{thing.color} shape"]
    if not named:
        return None
    called, thing = rng.choice(named)
    noun = rng.choice(("shape", "object", "thing"))
    text = rng.choice(
        (
            f"What shape is the {thing.color} {noun}?",
            f"What is the shape of the {thing.color} {noun}?",
            f"What is the {thing.color} {noun}?",
            f"Which shape is {thing.color}?",
        )
    )
    return Question("shape", text, f"The {called} is {a(thing.shape)}.", thing.shape)


def count(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the number of things, or of some of them."""
    if not scene.things:
        return None
    nouns = ["shape", rng.choice(scene.things).shape, f"{rng.choice(scene.things).color} shape"]
    nouns.append(name(rng.choice(scene.things)))
    if rng.random() < 0.12:
        nouns = [rng.choice(SHAPES), f"{rng.choice(list(COLORS))} shape"]
    noun = rng.choice(nouns)
    number = sum(fits(noun, thing) for thing in scene.things)
    *before, last = noun.split(" ")
    asked = " ".join([*before, rng.choice(("shapes", "shapes", "objects")) if last == "shape" else plural(last)])
    text = rng.choice(
        (
            f"How many {asked} are there?",
            f"How many {asked} are in the {picture(rng)}?",
            f"How many {asked} do you see?",
            f"Count the {asked}.",
            f"What is the number of {asked} in the {picture(rng)}?",
        )
    )
    verb = "is" if number == 1 else "are"
    return Question("count", text, f"There {verb} {counted(number, noun)}.", "zero" if not number else NUMBERS[number])


def fits(noun: str, thing: Thing) -> bool:
    """Whether `noun` ("shape", "red shape", "circle", "red circle") describes the thing."""
    *colors, last = noun.split(" ")
    return last in ("shape", thing.shape) and all(color == thing.color for color in colors)


def exists(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask whether the picture shows a certain thing."""
    if rng.random() < 0.5 and scene.things:
        thing = rng.choice(scene.things)
        noun = rng.choice((name(thing), thing.shape, f"{thing.color} shape"))
    else:
        color_name, shape_name = rng.choice(pairs)
        # Harder: only the colour or only the shape occurs.
        if scene.things and rng.random() < 0.5:
            thing = rng.choice(scene.things)
            changed = [pair for pair in pairs if (pair[0] == thing.color) != (pair[1] == thing.shape)]
            color_name, shape_name = rng.choice(changed)
        noun = rng.choice(
            (f"{color_name} {shape_name}", f"{color_name} {shape_name}", shape_name, f"{color_name} shape")
        )
    found = any(fits(noun, thing) for thing in scene.things)
    text = rng.choice(
        (
            f"Is there {a(noun)}?",
            f"Is there {a(noun)} in the {picture(rng)}?",
            f"Do you see {a(noun)}?",
            f"Does the {picture(rng)} show {a(noun)}?",
            f"Can you see {a(noun)} here?",
        )
    )
    if found:
        return Question("exists", text, f"Yes, there is {a(noun)}.", "Yes")
    return Question("exists", text, f"No, there is no {noun}.", "No")


def read(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the printed text."""
    if not scene.words:
        if rng.random() < 0.9:
            return None
        return Question("read", rng.choice(("What does the text say?", "Read the text.")), "There is no text.")
    word = rng.choice(scene.words)
    if len(scene.words) > 1:
        if len({item.color for item in scene.words}) < 2:
            return None
        text = rng.choice((f"What does the {word.color} text say?", f"Read the {word.color} text."))
        return Question("read", text, f'The {word.color} text says "{word.text}".', word.text)
    if word.text.isdigit() and rng.random() < 0.4:
        text = rng.choice((f"What number is in the {picture(rng)}?", "Which number is shown?", "Read the number."))
        return Question("read", text, f"The number is {word.text}.", word.text)
    where = picture(rng)
    text = rng.choice(
        (
            "What does the text say?",
            f"What is written in the {where}?",
            f"What text is in the {where}?",
            "Read the text.",
            f"Read the word in the {where}.",
            "What word is shown?",
            "What does it say?",
            f"Which word is printed in the {where}?",
        )
    )
    return Question("read", text, f'The text says "{word.text}".', word.text)


def ink(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the colour of the text."""
    if len(scene.words) != 1:
        return None
    word = scene.words[0]
    text = rng.choice(("What color is the text?", "Which color is the word?", "What is the color of the letters?"))
    return Question("color", text, f"The text is {word.color}.", word.color)


def background(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for the colour of the background."""
    text = rng.choice(
        ("What color is the background?", "What is the background color?", "Which color is the background?")
    )
    return Question("color", text, f"The background is {scene.background}.", scene.background)


def describe(rng: Random, scene: Scene, pairs: Pairs) -> Question | None:
    """Ask for a description of the picture."""
    phrase = contents(scene)
    if not phrase:
        return None
    where = picture(rng)
    text = rng.choice(
        (
            f"Describe the {where}.",
            f"What is in the {where}?",
            f"What does the {where} show?",
            f"What do you see in the {where}?",
            "What is this?",
            "What do you see?",
            f"Describe this {where} in one sentence.",
        )
    )
    return Question("describe", text, f"The picture shows {phrase} on {a(scene.background)} background.")
