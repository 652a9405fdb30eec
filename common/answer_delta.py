# SPDX-License-Identifier: Apache-2.0
"""What one response of the ensemble adds to an answer: each field, and the output tensor that carries it, once.

`postprocessing` writes these outputs and the frontend reads them. `docs/adding-a-field.md` lists the other places of a
response field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Encoding = Literal["text", "json", "int"]


@dataclass(frozen=True, slots=True)
class Output:
    """An output of the ensemble: a STRING holding text or a JSON array, or an INT32. default: not sent."""

    name: str
    encoding: Encoding
    default: Any


def _output(name: str, encoding: Encoding, default: Any = None) -> Any:
    return field(default=default, metadata={"output": Output(name, encoding, default)})


# Not frozen: the constructor of a frozen dataclass takes four times as long, and this runs for every token.
@dataclass(slots=True)
class AnswerDelta:
    """The addition to one answer. Several are merged by joining texts and lists; of counts the last is kept.

    tool_calls: OpenAI tool-call deltas; the first of a call has id, type and name, the others arguments.
    logprobs: one OpenAI chat logprob entry per id. prompt_logprobs: one per id of the prompt; each and its alternatives
    also have the `id`, and the `rank` in the vocabulary, of which the best is 1.
    token_ids: the ids consumed, only if `AnswerOptions.token_ids` asks for them. prompt_token_ids: those of the prompt.
    finish_reason: with the last delta "stop", "length", "tool_calls", "cancelled" or "timeout".
    completion_tokens: ids consumed, the end id included. reasoning_tokens: those inside the reasoning, without its
    tags. Both with finish_reason, and before it only if `AnswerOptions.continuous_usage` asks for the counts so far.
    prompt_tokens, cached_tokens: of the prompt, and those found in the KV cache; sent by the engine itself.
    stop_string: the stop string that ended the answer, with finish_reason.
    error: a failed answer, as `RequestError.encode` writes it.
    """

    text: str = _output("text_output", "text", "")
    reasoning: str = _output("reasoning_output", "text", "")
    tool_calls: tuple[dict[str, Any], ...] = _output("tool_calls", "json", ())
    logprobs: tuple[dict[str, Any], ...] = _output("logprobs", "json", ())
    prompt_logprobs: tuple[dict[str, Any], ...] = _output("prompt_logprobs", "json", ())
    token_ids: tuple[int, ...] = _output("token_ids", "json", ())
    prompt_token_ids: tuple[int, ...] = _output("prompt_token_ids", "json", ())
    finish_reason: str | None = _output("finish_reason", "text")
    completion_tokens: int | None = _output("completion_tokens", "int")
    reasoning_tokens: int | None = _output("reasoning_tokens", "int")
    prompt_tokens: int | None = _output("num_input_tokens", "int")
    cached_tokens: int | None = _output("num_cached_tokens", "int")
    stop_string: str | None = _output("stop_string", "text")
    error: str | None = _output("error", "text")


# Field of AnswerDelta -> its output.
OUTPUTS: Mapping[str, Output] = {one.name: one.metadata["output"] for one in fields(AnswerDelta)}
