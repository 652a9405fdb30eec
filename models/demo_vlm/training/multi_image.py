# SPDX-License-Identifier: Apache-2.0
"""Scenes and questions for two or three pictures in one prompt."""

from random import Random

from models.demo_vlm.training import words
from models.demo_vlm.training.palette import COLORS
from models.demo_vlm.training.phrases import NUMBERS, ORDINALS, a, contents, name
from models.demo_vlm.training.questions import worded
from models.demo_vlm.training.scenes import Plan, Scene, plan, scene
from models.demo_vlm.training.skills import Pairs, Question, fits

SKILL = "several"


def scenes(rng: Random, pairs: Pairs) -> list[Scene]:
    """Draw two or three scenes; in half of the cases they differ in only one thing."""
    number = 2 if rng.random() < 0.75 else 3
    if rng.random() < 0.5:
        return [scene(rng, wanted) for wanted in _variations(rng, pairs, number)]
    return [scene(rng, plan(rng, pairs)) for _ in range(number)]


def _variations(rng: Random, pairs: Pairs, number: int) -> list[Plan]:
    kind = rng.random()
    if kind < 0.3:
        return [Plan(words=(words.text(rng),)) for _ in range(number)]
    first = rng.choice(pairs)
    if kind < 0.5:
        return [Plan(things=(first,) * count) for count in rng.sample(range(1, 6), number)]
    if kind < 0.6:
        backgrounds = rng.sample([color for color in COLORS if color != first[0]], number)
        return [Plan(things=(first,), background=background) for background in backgrounds]
    shared = rng.randrange(2)
    alike = [pair for pair in pairs if pair[shared] == first[shared]]
    return [Plan(things=(pair,)) for pair in rng.sample(alike, number)]


def ask(rng: Random, pictures: list[Scene], number: int, pairs: Pairs) -> list[Question]:
    """Draw up to `number` different questions about the scenes."""
    kinds = (_which, _which, _what, _what, _differ, _differ, _read, _more, _same, _count)
    asked: dict[str, Question] = {}
    for kind in rng.choices(kinds, k=3 * number):
        question = kind(rng, pictures, pairs)
        if question and len(asked) < number:
            asked.setdefault(question.answer, question)
    return [worded(rng, question) for question in asked.values()]


def _noun(rng: Random) -> str:
    return "image" if rng.random() < 0.7 else "picture"


def _which(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    things = [thing for item in pictures for thing in item.things]
    if not things:
        return None
    thing = rng.choice(things)
    what = rng.choice((name(thing), thing.shape, f"{thing.color} shape"))
    where = [index for index, item in enumerate(pictures) if any(fits(what, other) for other in item.things)]
    if len(where) != 1:
        return None
    noun = _noun(rng)
    text = rng.choice(
        (f"Which {noun} has {a(what)}?", f"Which {noun} shows {a(what)}?", f"In which {noun} is there {a(what)}?")
    )
    return Question(SKILL, text, f"The {ORDINALS[where[0]]} image has {a(what)}.", ORDINALS[where[0]])


def _what(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    index = rng.randrange(len(pictures))
    phrase = contents(pictures[index])
    if not phrase:
        return None
    place = f"{ORDINALS[index]} {_noun(rng)}"
    text = rng.choice((f"What is in the {place}?", f"What does the {place} show?", f"Describe the {place}."))
    return Question(SKILL, text, f"The {ORDINALS[index]} image shows {phrase}.")


def _differ(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    if len(pictures) != 2:
        return None
    first, second = (_full(item, pictures) for item in pictures)
    if not first or not second or first == second:
        return None
    noun = _noun(rng)
    text = rng.choice(
        (
            "What differs?",
            f"What is the difference between the {noun}s?",
            f"What is different between the two {noun}s?",
            f"How do the {noun}s differ?",
            f"Compare the two {noun}s.",
        )
    )
    return Question(SKILL, text, f"The first image shows {first} and the second image shows {second}.")


def _full(item: Scene, pictures: list[Scene]) -> str | None:
    """The contents of a scene, with its background if both scenes have the same contents."""
    phrases = [contents(other) for other in pictures]
    phrase = contents(item)
    return f"{phrase} on {a(item.background)} background" if phrase and phrases[0] == phrases[1] else phrase


def _read(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    indices = [index for index, item in enumerate(pictures) if len(item.words) == 1]
    if not indices:
        return None
    index = rng.choice(indices)
    place, text = f"{ORDINALS[index]} {_noun(rng)}", pictures[index].words[0].text
    wording = rng.choice((f"What does the text in the {place} say?", f"Read the text in the {place}."))
    return Question(SKILL, wording, f'The text in the {ORDINALS[index]} image says "{text}".')


def _more(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    counts = [len(item.things) for item in pictures]
    if len(pictures) != 2 or counts[0] == counts[1] or not min(counts):
        return None
    more = rng.random() < 0.5
    index = counts.index(max(counts) if more else min(counts))
    word = "more" if more else "fewer"
    text = f"Which {_noun(rng)} has {word} {rng.choice(('shapes', 'objects'))}?"
    return Question(SKILL, text, f"The {ORDINALS[index]} image has {word} shapes.", ORDINALS[index])


def _same(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    if len(pictures) != 2 or any(len(item.things) != 1 or item.words for item in pictures):
        return None
    first, second = (item.things[0] for item in pictures)
    kind, one, other = rng.choice((("shape", first.shape, second.shape), ("color", first.color, second.color)))
    text = rng.choice((f"Do both images show the same {kind}?", f"Is the {kind} the same in both images?"))
    if kind == "shape":
        answer = f"both images show {a(one)}" if one == other else f"the first is {a(one)} and the second is {a(other)}"
    else:
        answer = f"both are {one}" if one == other else f"the first is {one} and the second is {other}"
    yes = "Yes" if one == other else "No"
    return Question(SKILL, text, f"{yes}, {answer}.", yes)


def _count(rng: Random, pictures: list[Scene], pairs: Pairs) -> Question | None:
    if rng.random() < 0.7:
        return None
    text = rng.choice(("How many images are there?", "How many pictures do you see?"))
    return Question(SKILL, text, f"There are {NUMBERS[len(pictures)]} images.", NUMBERS[len(pictures)])
