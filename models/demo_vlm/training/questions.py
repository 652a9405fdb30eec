# SPDX-License-Identifier: Apache-2.0
"""Questions about one picture in varied wording, each with the expected answer."""

from collections.abc import Callable
from random import Random

from models.demo_vlm.training.phrases import NUMBERS, capital
from models.demo_vlm.training.positions import direction, extreme, position, relation
from models.demo_vlm.training.scenes import PAIRS, Scene
from models.demo_vlm.training.skills import (
    Pairs,
    Question,
    background,
    color,
    count,
    describe,
    exists,
    ink,
    read,
    shape,
)

Skill = Callable[[Random, Scene, Pairs], Question | None]
# Relative frequency of each skill, among those that fit a picture.
_SKILLS: tuple[tuple[Skill, float], ...] = (
    (color, 1.2),
    (shape, 1.0),
    (count, 1.6),
    (position, 1.2),
    (relation, 1.2),
    (exists, 1.0),
    (read, 3.0),
    (ink, 0.5),
    (background, 0.4),
    (extreme, 0.6),
    (direction, 0.8),
    (describe, 1.2),
)


def ask(rng: Random, scene: Scene, number: int, pairs: Pairs = PAIRS) -> list[Question]:
    """Draw up to `number` different questions about the scene. pairs: what may be asked for but be absent."""
    asked: dict[str, Question] = {}
    for skill in rng.choices([skill for skill, _ in _SKILLS], [weight for _, weight in _SKILLS], k=3 * number):
        question = skill(rng, scene, pairs)
        if question and len(asked) < number:
            asked.setdefault(question.answer, question)
    return [worded(rng, question) for question in asked.values()]


_IN_A_WORD = ("Answer in one word.", "Answer with one word.", "One word only.", "Just one word.")
_IN_A_DIGIT = ("Answer with a number.", "Answer with a digit.", "Just the number.")


def worded(rng: Random, question: Question) -> Question:
    """Vary the spelling of a question; sometimes ask for the short answer."""
    text, answer = spelled(rng, question.text), question.answer
    if question.short and rng.random() < 0.15:
        if question.skill == "count" and rng.random() < 0.5:
            numbers = ("zero", *NUMBERS[1:])
            return Question(question.skill, f"{text} {rng.choice(_IN_A_DIGIT)}", str(numbers.index(question.short)))
        if question.skill == "read":
            return Question(
                question.skill, f"{text} {rng.choice(('Only the text.', 'Just the text.'))}", question.short
            )
        instruction = "Answer yes or no." if question.short in ("Yes", "No") else rng.choice(_IN_A_WORD)
        return Question(question.skill, f"{text} {instruction}", capital(question.short))
    return Question(question.skill, text, answer)


def spelled(rng: Random, text: str) -> str:
    """Vary the spelling: British English, no final punctuation mark, or no capital letter."""
    if rng.random() < 0.2:
        text = text.replace("color", "colour").replace("gray", "grey").replace("center", "centre")
    if rng.random() < 0.06:
        text = text.rstrip("?.")
    return text[0].lower() + text[1:] if rng.random() < 0.06 else text
