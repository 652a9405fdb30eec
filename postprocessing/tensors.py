# SPDX-License-Identifier: Apache-2.0
"""The engine's output tensors as lists, and answers as the output tensors of `postprocessing`."""

import json
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from common.answer_delta import OUTPUTS, AnswerDelta, Encoding
from common.response_batch import ANSWERS, Begin, encode_rows
from postprocessing.logprobs import prompt_logprobs_json, token_table
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


def write_delta(delta: AnswerDelta, further_beams: Sequence[str] = ()) -> list[Tensor]:
    """The outputs of one response; `text_output` is always sent, and also holds the texts of further beams."""
    texts = [delta.text.encode(errors="replace")]
    if further_beams:
        texts += [text.encode(errors="replace") for text in further_beams]
    tensors = [pb_utils.Tensor("text_output", np.array([texts], dtype=object))]
    for field, value in set_fields(delta).items():
        name, write = _WRITERS[field]
        tensors.append(write(name, value))
    return tensors


def set_fields(delta: AnswerDelta) -> dict[str, Any]:
    """The fields of a delta that say something, apart from its text."""
    values = _optional(delta)
    if values == _DEFAULTS:  # This runs for every delta, and most have only a text.
        return {}
    return {name: value for name, value in zip(_OPTIONAL, values, strict=True) if value not in _UNSET}


def prompt_counts(begin: Begin) -> dict[str, Any]:
    """The fields about the prompt that the engine itself sends outside of batches."""
    counts = {"prompt_tokens": begin.prompt_tokens, "cached_tokens": begin.cached_tokens}
    return {name: count for name, count in counts.items() if count is not None}


def batch_response(answers: list[tuple[Any, ...]]) -> InferenceResponse:
    """A response with what a batch adds to several answers, as AnswerRow each.

    Raises TypeError if one holds what JSON cannot.
    """
    batch = np.frombuffer(encode_rows(answers), np.uint8)[None]
    return pb_utils.InferenceResponse([pb_utils.Tensor(ANSWERS, batch)])


def prompt_outputs(inputs: Inputs, tokenizer: Tokenizer, *, with_ids: bool) -> list[Tensor]:
    """The outputs about the prompt, if the engine sent its ids with this response. with_ids: they are asked for."""
    ids = inputs.array("prompt_log_probs_ids")
    if ids is None:
        return []
    tensors: list[Tensor] = []
    if with_ids:
        tensors.append(_json("prompt_token_ids", ids[:, 0].tolist()))
    logprobs = inputs.array("prompt_log_probs")
    if logprobs is not None:
        ranks = inputs.array("prompt_log_probs_ranks")
        entries = prompt_logprobs_json(token_table(tokenizer), ids, logprobs, ranks)
        tensors.append(pb_utils.Tensor("prompt_logprobs", np.array([[entries]], dtype=object)))
    return tensors


def failure(error: str) -> InferenceResponse:
    """A failed answer as data: an error response in the middle of an ensemble's stream leaks the request."""
    return pb_utils.InferenceResponse(write_delta(AnswerDelta(error=error)))


# A lone surrogate stays one, which `string` replaces; escaped, the frontend's parser would refuse it.
_encode_json = json.JSONEncoder(ensure_ascii=False).encode


def _json(name: str, value: Sequence[Any]) -> Tensor:
    return string(name, _encode_json(value))


def _int(name: str, value: int) -> Tensor:
    return ints(name, [value])


_ENCODERS: dict[Encoding, Callable[[str, Any], Tensor]] = {"text": string, "json": _json, "int": _int}
_OPTIONAL = {field: output for field, output in OUTPUTS.items() if field != "text"}
_WRITERS = {field: (output.name, _ENCODERS[output.encoding]) for field, output in _OPTIONAL.items()}
_DEFAULTS = tuple(output.default for output in _OPTIONAL.values())
_UNSET = (None, "", ())
_optional = attrgetter(*_OPTIONAL)
