# SPDX-License-Identifier: Apache-2.0
"""Workloads: prompt and answer lengths in tokens, growing conversations, pictures."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING

from scripts.bench.questions import Question, Stream

if TYPE_CHECKING:
    # It imports transformers, which the command's help need not wait for.
    from scripts.bench.prompts import Messages, PromptMaker


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load.

    lengths: (prompt tokens, output tokens) of a stream's requests in turn.
    turns: requests of one conversation, each with all before it as its prefix; each adds `step` tokens.
    pictures: number in each request. The prompt is a short question then; its length depends on the pictures.
    """

    about: str
    lengths: tuple[tuple[int, int], ...]
    turns: int = 1
    step: int = 0
    pictures: int = 0
    temperature: float = 0.0

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt and its answer, without pictures."""
        return max(prompt + output for prompt, output in self.lengths) + (self.turns - 1) * self.step


WORKLOADS: Mapping[str, Workload] = {
    "chat": Workload("128 tokens in, 256 out", ((128, 256),)),
    "summary": Workload("1,200 tokens in, 150 out", ((1200, 150),)),
    "document": Workload("32,000 tokens in, 128 out", ((32_000, 128),)),
    "turns": Workload("4 turns: 512 tokens in, then 256 more each, 128 out", ((512, 128),), turns=4, step=256),
    "image": Workload("one picture of 13 tiles and a question in, 50 tokens out", ((0, 50),), pictures=1),
    "mixed": Workload(
        "half chat, a quarter summary, a quarter 512 in and 64 out", ((128, 256), (1200, 150), (128, 256), (512, 64))
    ),
}
QUESTION = "What is there to see in this picture? Tell in one sentence."
# Different pictures of each stream beside others, after which it begins again.
PICTURES_BESIDE = 24
_BESIDE = 50_000
# Far apart, so that no two requests share a seed.
_PER_STREAM, _PER_ROUND = 1_000, 1_000_000


def chosen(name: str, prompt_tokens: int | None, output_tokens: int | None, temperature: float = 0.0) -> Workload:
    """The named workload with other lengths, if given; raises ValueError if its lengths cannot be changed."""
    workload = WORKLOADS[name]
    if len(workload.lengths) > 1 and (prompt_tokens or output_tokens):
        raise ValueError(
            f"the workload {name} has several lengths of its own: --prompt-tokens and --output-tokens are for others"
        )
    if workload.pictures and prompt_tokens:
        raise ValueError(
            f"the pictures of the workload {name} make its prompts as long as they are: no --prompt-tokens"
        )
    lengths = tuple((prompt_tokens or prompt, output_tokens or output) for prompt, output in workload.lengths)
    return replace(workload, lengths=lengths, temperature=temperature)


def check(workload: Workload, maker: "PromptMaker") -> None:
    """Raises ValueError if the model cannot take the workload."""
    if workload.pictures and not maker.takes_images:
        raise ValueError("this model takes no pictures; give a model that does: --model FOLDER")
    if workload.longest > maker.max_model_len:
        raise ValueError(
            f"the workload needs a context of {workload.longest} tokens, and there are {maker.max_model_len}; "
            "give another model, a larger --max-model-len, or shorter --prompt-tokens and --output-tokens"
        )


def streams(
    workload: Workload, maker: "PromptMaker", count: int, requests: int, warmup: int, *, number: int, salt: int
) -> list[Stream]:
    """Make `count` streams of `requests` requests each, after `warmup` others.

    number: of the round; each round has other prompts. salt: of the target, see `PromptMaker.fit`.
    """
    # Whole conversations, so that the measured part begins with a first turn.
    warmup = -(-warmup // workload.turns) * workload.turns
    made = []
    for index in range(count):
        seed = number * _PER_ROUND + index * _PER_STREAM
        questions = _conversations(workload, maker, index, warmup + requests, seed, salt)
        asked = [replace(question, temperature=workload.temperature) for question in questions]
        made.append(Stream(asked[:warmup], asked[warmup:]))
    return made


def beside(workload: Workload, maker: "PromptMaker", count: int, *, number: int, salt: int) -> list[Stream]:
    """Make `count` streams of questions about pictures that run beside a workload's own streams."""
    pictures = replace(WORKLOADS["image"], temperature=workload.temperature)
    made = streams(pictures, maker, count, PICTURES_BESIDE, 1, number=number, salt=salt + _BESIDE)
    return [replace(stream, beside=True) for stream in made]


def _conversations(
    workload: Workload, maker: "PromptMaker", index: int, count: int, seed: int, salt: int
) -> list[Question]:
    lengths = islice(cycle(workload.lengths), index % len(workload.lengths), None)
    questions: list[Question] = []
    while len(questions) < count:
        prompt, output = next(lengths)
        if workload.pictures:
            questions.append(_about_picture(workload, maker, output, hash((seed + len(questions), salt))))
            continue
        earlier: Messages = ()
        for turn in range(workload.turns):
            question = _turn(maker, earlier, prompt + turn * workload.step, output, seed + len(questions), salt)
            questions.append(question)
            # The model's answer is not known in advance; random words of its length replace it.
            answer = maker.text(output, random.Random(seed + len(questions)))  # nosec B311 # no secret is drawn
            earlier = (*question.messages, {"role": "assistant", "content": answer})
    return questions[:count]


def _turn(maker: "PromptMaker", earlier: "Messages", tokens: int, output: int, seed: int, salt: int) -> Question:
    def make(text: str) -> "Messages":
        return (*earlier, {"role": "user", "content": text})

    messages, ids = maker.fit(make, tokens, hash((seed, salt)), seed)
    return Question(messages, tuple(ids), output)


def _about_picture(workload: Workload, maker: "PromptMaker", output: int, seed: int) -> Question:
    from scripts.bench.pictures import photo  # It imports numpy and Pillow.

    images = tuple(photo(seed + index) for index in range(workload.pictures))
    parts = [*({"type": "image_url"} for _ in images), {"type": "text", "text": QUESTION}]
    messages = ({"role": "user", "content": parts},)
    return Question(messages, tuple(maker.build(messages, images).input_ids), output, images)
