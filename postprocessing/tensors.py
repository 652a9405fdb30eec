# SPDX-License-Identifier: Apache-2.0
"""The engine's output tensors as lists, and answers as the output tensors of `postprocessing`."""

import json
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from postprocessing.answer_stream import AnswerDelta
from postprocessing.logprobs import prompt_logprob_entries, token_table
from python_backend.api import InferenceResponse, Tensor, pb_utils
from python_backend.tensors import Inputs, ints, string


def beams(inputs: Inputs) -> list[list[int]]:
    """The new ids of each beam, without the padding of shorter beams to the longest."""
    ids, lengths = inputs.array("output_ids"), inputs.array("sequence_length")
    if ids is None:
        raise ValueError("the engine's response has no output_ids")
    if len(ids) < 2 or lengths is None:
        return [ids.flatten().tolist()]
    return [beam[:length].tolist() for beam, length in zip(ids, lengths.tolist(), strict=True)]


def rows(inputs: Inputs, name: str) -> list[list[Any]] | None:
    """An input of two dimensions as nested lists; None if it is absent."""
    array = inputs.array(name)
    return None if array is None else array.tolist()


def new_logprobs(inputs: Inputs, count: int) -> list[float] | None:
    """The last `count` log-probabilities of the best beam: the C++ backend repeats those of all earlier tokens."""
    logprobs = rows(inputs, "output_log_probs")
    return None if logprobs is None else logprobs[0][max(0, len(logprobs[0]) - count) :]


def write_delta(delta: AnswerDelta, further_beams: list[str]) -> list[Tensor]:
    """The outputs of one response; `text_output` also holds the texts of further beams."""
    texts = [text.encode(errors="replace") for text in (delta.text, *further_beams)]
    tensors = [pb_utils.Tensor("text_output", np.array([texts], dtype=object))]
    if delta.reasoning:
        tensors.append(string("reasoning_output", delta.reasoning))
    if delta.tool_calls:
        tensors.append(string("tool_calls", json.dumps(delta.tool_calls, ensure_ascii=False)))
    if delta.logprobs:
        tensors.append(string("logprobs", json.dumps(delta.logprobs)))
    if delta.finish_reason is not None:
        tensors += [
            string("finish_reason", delta.finish_reason),
            ints("completion_tokens", [delta.completion_tokens or 0]),
            ints("reasoning_tokens", [delta.reasoning_tokens or 0]),
        ]
    return tensors


def write_prompt_logprobs(inputs: Inputs, tokenizer: Tokenizer) -> list[Tensor]:
    """The output `prompt_logprobs`, if the engine sent them with this response."""
    ids, logprobs = rows(inputs, "prompt_log_probs_ids"), rows(inputs, "prompt_log_probs")
    if ids is None or logprobs is None:
        return []
    # Column 0 is the prompt's own token; the first row has no log-probability, as no token precedes it.
    entries = prompt_logprob_entries(
        token_table(tokenizer),
        [row[0] for row in ids],
        [row[0] for row in logprobs[1:]],
        [row[1:] for row in ids[1:]],
        [row[1:] for row in logprobs[1:]],
    )
    return [string("prompt_logprobs", json.dumps(entries))]


def failure(error: str) -> InferenceResponse:
    """A failed answer as data: an error response in the middle of an ensemble's stream leaks the request."""
    return pb_utils.InferenceResponse([string("text_output", ""), string("error", error)])
