# SPDX-License-Identifier: Apache-2.0
"""Measure the accuracy of a weights file on held-out pictures; prints a Markdown table."""

import argparse
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from models.demo_vlm.layout import TILE
from models.demo_vlm.training.dialogue import Encoder, Turn
from models.demo_vlm.training.generate import Prompt, answers
from models.demo_vlm.training.model import DemoModel, load_weights, read_weights
from models.demo_vlm.training.samples import Sample, cut, draw, draw_unseen
from models.demo_vlm.training.scenes import SEEN_PAIRS

COLUMNS = ("one tile", "several tiles", "unseen pairs")
_BATCH = 192
_ASIDE = re.compile(r"[^\w\s]")
_CHECKED = ("What is the capital of France?", "Hello!", "Write a haiku about rain.")


@dataclass(frozen=True, slots=True)
class Case:
    """One question of the evaluation. column: the part of the evaluation set, one of COLUMNS."""

    skill: str
    column: str
    prompt: Prompt
    question: str
    expected: str


@dataclass(frozen=True, slots=True)
class Result:
    """The model's answer to a question."""

    case: Case
    answer: str

    @property
    def right(self) -> bool:
        """Whether the answer is correct."""
        return matches(self.answer, self.case.expected)


def matches(answer: str, expected: str) -> bool:
    """Whether the texts are equal, ignoring letter case, punctuation and spacing."""
    return _plain(answer) == _plain(expected)


def _plain(text: str) -> list[str]:
    return _ASIDE.sub(" ", text.casefold()).split()


class CaseSet(Dataset[list[Case]]):
    """Samples with fixed seeds, each with up to three separate questions."""

    def __init__(self, checkpoint: Path, number: int) -> None:
        self._encoder = Encoder(checkpoint)
        self._number = number

    def __len__(self) -> int:
        return self._number

    def __getitem__(self, index: int) -> list[Case]:
        if index >= self._number:
            raise IndexError(index)
        rng = Random(f"evaluation {index}")  # nosec B311 # no secret is drawn
        unseen = index % 4 == 3
        sample = draw_unseen(rng, 3) if unseen else draw(rng, SEEN_PAIRS, 3)
        return _of(self._encoder, sample, unseen)


def loader(checkpoint: Path, number: int, workers: int) -> Iterator[list[Case]]:
    """Iterate over the samples' cases. They are drawn by worker processes, which start immediately."""
    return iter(DataLoader(CaseSet(checkpoint, number), batch_size=None, num_workers=workers))


def _of(encoder: Encoder, sample: Sample, unseen: bool) -> list[Case]:
    tiles, _, counts = cut(sample)
    column = COLUMNS[2] if unseen else COLUMNS[0 if max(counts) == 1 else 1]
    prompts = (Prompt(encoder.encode([Turn(item.text)], counts)[0], tiles) for item in sample.asked)
    pairs = zip(sample.asked, prompts, strict=True)
    return [Case(item.skill, column, prompt, item.text, item.answer) for item, prompt in pairs]


def run(
    model: DemoModel, encoder: Encoder, asked: Iterable[list[Case]], deadline: float = float("inf")
) -> list[Result]:
    """Answer as many cases as possible before the deadline, a value of time.monotonic()."""
    results: list[Result] = []
    waiting: list[Case] = []
    for some in asked:
        waiting += some
        if len(waiting) >= _BATCH:
            results += _answered(model, encoder, waiting)
            waiting = []
        if time.monotonic() > deadline:
            return results
    return results + (_answered(model, encoder, waiting) if waiting else [])


def _answered(model: DemoModel, encoder: Encoder, asked: Sequence[Case]) -> list[Result]:
    made = answers(model, encoder, [case.prompt for case in asked])
    return [Result(case, encoder.tokenizer.decode(ids)) for case, ids in zip(asked, made, strict=True)]


def table(results: Iterable[Result]) -> str:
    """Format the share of correct answers, in percent, and the number of questions by skill and part of the set."""
    marks: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for result in results:
        for skill in (result.case.skill, "**all**"):
            for column in (result.case.column, "all"):
                marks[skill, column].append(result.right)
    columns = (*COLUMNS, "all")
    lines = [f"| skill | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for skill in sorted({skill for skill, _ in marks}, key=lambda name: (name == "**all**", name)):
        cells = (_cell(marks[skill, column]) for column in columns)
        lines.append(f"| {skill} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(marks: list[bool]) -> str:
    return f"{100 * sum(marks) / len(marks):.0f} % of {len(marks)}" if marks else ""


def mistakes(results: Iterable[Result], number: int) -> str:
    """List up to `number` wrong answers."""
    wrong = [result for result in results if not result.right][:number]
    return "\n".join(f"{item.case.question!r}: {item.answer!r}, not {item.case.expected!r}" for item in wrong)


def chats(model: DemoModel, encoder: Encoder, questions: Sequence[str] = _CHECKED) -> list[str]:
    """Answer questions without a picture."""
    nothing = np.empty((0, TILE, TILE, 3), np.uint8)
    prompts = [Prompt(encoder.encode([Turn(question)])[0], nothing) for question in questions]
    return [encoder.tokenizer.decode(ids) for ids in answers(model, encoder, prompts)]


def main() -> int:
    """Evaluate the weights that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="a weights file, or the folder of a training run")
    parser.add_argument("--llm", type=Path, required=True, help="the language model's folder, not yet adapted")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    model = DemoModel(options.llm).to(options.device).eval()
    load_weights(model, read_weights(options.weights))
    encoder = Encoder(options.llm)
    results = run(model, encoder, loader(options.llm, options.samples, 0))
    sys.stdout.write(f"{table(results)}\n{mistakes(results, 20)}\n\n")
    sys.stdout.write("\n".join(chats(model, encoder)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
