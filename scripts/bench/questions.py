# SPDX-License-Identifier: Apache-2.0
"""The requests that every target gets, and the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """One request, the same for every endpoint.

    messages: OpenAI's, with an empty `image_url` part for each image. images: their encoded files.
    input_ids: the rendered prompt, for endpoints that take ids; ids past the vocabulary are an image's rows.
    output_tokens: exactly this many are generated, as the end token is ignored. trace_id: of the trace that the request
    begins, 32 hexadecimal digits; "" for none.
    """

    messages: tuple[dict[str, Any], ...]
    input_ids: tuple[int, ...]
    output_tokens: int
    images: tuple[bytes, ...] = ()
    temperature: float = 0.0
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answered request: when it was sent, when each content chunk arrived and when the answer ended.

    Times are seconds of one monotonic clock; token counts are the server's own. trace_id: of its question.
    """

    sent: float
    chunks: tuple[float, ...]
    ended: float
    prompt_tokens: int
    output_tokens: int
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """One request that was not answered as requested, and the reason."""

    reason: str


Answer = Sample | Failure


def check_result(question: Question, sample: Sample) -> Answer:
    """Return the sample, or a Failure if its token counts are not the requested ones or it has no content."""
    if sample.output_tokens != question.output_tokens:
        return Failure(f"{sample.output_tokens} tokens were written, not {question.output_tokens}")
    if sample.prompt_tokens != len(question.input_ids):
        return Failure(f"the prompt had {sample.prompt_tokens} tokens there, not {len(question.input_ids)}")
    if not sample.chunks:
        return Failure("no chunk had content")
    return sample


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: requests that are sent one after the other.

    after: seconds from the start of the load to its first request.
    beside: the stream is load for others: it asks its questions in turn until those that are measured have ended, and
    its answers are kept apart.
    """

    warmup: Sequence[Question]
    measured: Sequence[Question]
    beside: bool = False
    after: float = 0.0
