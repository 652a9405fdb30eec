# SPDX-License-Identifier: Apache-2.0
"""The input tensors of `preprocessing` as a `PromptRequest`, and an `EngineInput` as its output tensors."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.chat.parts import Picture
from common.errors import RequestError
from common.sampling import INT32_MAX
from common.shared_bytes import Handle, joined
from preprocessing.prompt import EngineInput, PromptRequest
from python_backend.api import Tensor, pb_utils
from python_backend.tensors import Inputs, floats, ints, string

# The output with the place of bytes in shared memory, instead of `multimodal`.
HANDLE = "multimodal_memory"
# Parameter -> what its value must be.
_OPTIONS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("add_special_tokens", lambda value: type(value) is bool, "a boolean"),
    (
        "truncate_prompt_tokens",
        lambda value: type(value) is int and (value == -1 or 1 <= value <= INT32_MAX),
        "-1 or a positive integer",
    ),
    ("truncation_side", lambda value: value in ("left", "right"), "left or right"),
)


def read_request(inputs: Inputs) -> PromptRequest:
    """The prompt of a request; raises RequestError if paired inputs differ in length."""
    words, weights = inputs.strings("embedding_bias_words") or (), inputs.floats("embedding_bias_weights") or ()
    ids, values = inputs.ints("logit_bias_ids") or (), inputs.floats("logit_bias_values") or ()
    if len(words) != len(weights):
        raise RequestError("embedding_bias_words and embedding_bias_weights differ in length")
    if len(ids) != len(values):
        raise RequestError("logit_bias_ids and logit_bias_values differ in length", param="logit_bias")
    return PromptRequest(
        text=inputs.string("text_input"),
        messages=inputs.string("messages"),
        input_ids=inputs.ints("prompt_ids"),
        images=inputs.blobs("images") or (),
        max_tokens=inputs.number("max_tokens"),
        stop_words=inputs.strings("stop_words") or (),
        bad_words=inputs.strings("bad_words") or (),
        stop_token_ids=inputs.ints("stop_token_ids") or (),
        end_id=inputs.number("end_id"),
        pad_id=inputs.number("pad_id"),
        bias_words=tuple(zip(words, weights, strict=True)),
        logit_bias=dict(zip(ids, values, strict=True)),
        guide_type=inputs.string("guided_decoding_guide_type"),
        guide=inputs.string("guided_decoding_guide"),
    )


def read_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `PromptRequest` that travel as request parameters; raises RequestError for a wrong value."""
    options: dict[str, Any] = {"cap_max_tokens": parameters.get("cap_max_tokens") is True}
    for name, valid, noun in _OPTIONS:
        if name in parameters:
            if not valid(parameters[name]):
                raise RequestError(f"parameter '{name}' must be {noun}", param=name)
            options[name] = parameters[name]
    return options


def read_return_perf_metrics(inputs: Inputs) -> bool | None:
    """Whether the client requested timing from the engine; None if the input is absent."""
    requested = inputs.array("return_perf_metrics")
    return None if requested is None else bool(requested.flatten()[0])


def read_lora_task_id(inputs: Inputs) -> int | None:
    """The id of the request's adapter; None if the input is absent."""
    asked = inputs.array("lora_task_id")
    return None if asked is None else int(asked.flatten()[0])


def write_adapter(weights: NDArray[np.float16], config: NDArray[np.int32]) -> list[Tensor]:
    """The weights of an adapter [rows, width], and the module, layer and rank of each row [rows, 3]."""
    return [pb_utils.Tensor("lora_weights", weights[np.newaxis]), ints("lora_config", config)]


def write_adapters(table: str) -> Tensor:
    """The adapters that there are, as JSON; the one output of a request that asks for nothing else."""
    return string("adapters", table)


def write_prompt(prompt: EngineInput, vocab_size: int) -> list[Tensor]:
    """The outputs of a prompt, without its pictures. vocab_size: length of the output `embedding_bias`."""
    tensors = [
        ints("input_ids", prompt.input_ids),
        ints("input_lengths", [len(prompt.input_ids)]),
        ints("request_output_len", [prompt.request_output_len]),
        ints("out_end_id", [prompt.end_id]),
        ints("out_pad_id", [prompt.pad_id]),
    ]
    if prompt.stop_words:
        tensors.append(_words("stop_words_list", prompt.stop_words))
    if prompt.bad_words:
        tensors.append(_words("bad_words_list", prompt.bad_words))
    if prompt.embedding_bias:
        bias = np.zeros(vocab_size, np.float32)
        bias[list(prompt.embedding_bias)] = list(prompt.embedding_bias.values())
        tensors.append(floats("embedding_bias", bias))
    if prompt.guide_type is not None:
        tensors += [string("out_guide_type", prompt.guide_type), string("out_guide", prompt.guide or "")]
    return tensors


def write_pictures(name: str, pictures: Sequence[Picture], extra_ids: Sequence[int]) -> list[Tensor]:
    """The pixels of all pictures as the output `name`, and the extra ids of the prompt's tokens."""
    pixels = np.concatenate([picture.pixels for picture in pictures])
    return [
        pb_utils.Tensor(name, pixels[np.newaxis]),
        ints("prompt_table_extra_ids", extra_ids, np.uint64),
    ]


def write_features(features: Sequence[memoryview]) -> Tensor:
    """What the engine's own processor made of the pictures: pieces of bytes."""
    return pb_utils.Tensor("multimodal", joined(features)[np.newaxis])


def write_handle(handle: Handle) -> Tensor:
    """Where the engine finds these bytes in shared memory."""
    return ints(HANDLE, handle, np.int64)


def write_return_perf_metrics(requested: bool) -> Tensor:
    """Whether the engine shall send timing with its responses."""
    return pb_utils.Tensor("out_return_perf_metrics", np.array([[requested]]))


def write_reasoning_open(is_open: bool) -> Tensor:
    """Whether the prompt ends inside the reasoning; the engine returns it to `postprocessing`."""
    return ints("reasoning_open", [is_open])


def write_token_strs(tokens: Sequence[str]) -> Tensor:
    """The vocabulary's text of each id of the prompt."""
    return pb_utils.Tensor("token_strs", np.array([[token.encode() for token in tokens]], dtype=object))


def _words(name: str, words: list[list[int]]) -> Tensor:
    """An output of shape [2, n]: the words' ids in sequence, and the end offsets of the words, padded with -1."""
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return ints(name, [ids, ends + [-1] * (len(ids) - len(ends))])
