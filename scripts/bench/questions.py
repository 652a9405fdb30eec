# SPDX-License-Identifier: Apache-2.0
"""What is asked of every contender, and what comes back of one request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """One request, the same for every tap.

    messages: OpenAI's, with an empty `image_url` part where an image stands. images: their encoded files.
    input_ids: the rendered prompt, for the taps that take ids; ids past the vocabulary stand for an image's rows.
    output_tokens: exactly as many are written, as the end token is ignored.
    """

    messages: tuple[dict[str, Any], ...]
    input_ids: tuple[int, ...]
    output_tokens: int
    images: tuple[bytes, ...] = ()
    temperature: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered request, seconds on one clock: sent, each content chunk's arrival, and the answer's end.

    Counts are the server's own.
    """

    sent: float
    chunks: tuple[float, ...]
    ended: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that was not answered as asked, and why."""

    reason: str


Answer = Sample | Failure


def judged(question: Question, sample: Sample) -> Answer:
    """The sample, or a Failure where it is not what was asked for: another prompt, another length, no content."""
    if sample.output_tokens != question.output_tokens:
        return Failure(f"{sample.output_tokens} tokens were written, not {question.output_tokens}")
    if sample.prompt_tokens != len(question.input_ids):
        return Failure(f"the prompt had {sample.prompt_tokens} tokens there, not {len(question.input_ids)}")
    if not sample.chunks:
        return Failure("no chunk had content")
    return sample


@dataclass(frozen=True, slots=True)
class Stream:
    """One of the closed loop's streams: its requests, each sent when the one before was answered."""

    warmup: Sequence[Question]
    measured: Sequence[Question]
