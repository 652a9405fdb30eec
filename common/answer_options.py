# SPDX-License-Identifier: Apache-2.0
"""The options of an answer, sent as Triton request parameters.

A step of an ensemble cannot take a tensor that is sent once while its other inputs stream. Triton passes request
parameters to every step, so `postprocessing` gets its options as parameters.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from common.chat.text_arguments import read_text_arguments
from common.errors import RequestError

Parameter = str | int | bool


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """Options of `postprocessing`; every field is one request parameter of the same name.

    chat: parse the text as a chat answer (reasoning, tool calls); if False, `text_output` is the raw text.
    stop: strings that end the answer; a JSON array as a parameter.
    stop_token_ids: ids that end the answer, besides the model's own; a JSON array as a parameter.
    include_stop: keep what ended the answer in the text, the stop string or the text of the stop token.
    min_tokens: stop strings that are complete within the first tokens, as many as this, do not end the answer.
    skip_special_tokens: omit special tokens from the text.
    inline_reasoning: keep the reasoning and its tags in the content instead of `reasoning_output`.
    enable_thinking: the chat template's variable; None is the family's default.
    reasoning_open: whether the prompt ends inside the reasoning; None is as `enable_thinking` and the family say. In a
        chat through the ensemble `preprocessing` sets it from the rendered prompt.
    tools: the request offered tools, so tool calls are parsed.
    tool_choice: "auto", "none", "required" or "function:<name>".
    text_arguments: the request's functions with their parameters that take text only, see common.chat.text_arguments;
        needed for models that write arguments without JSON's quotes.
    continuous_usage: send the counts of tokens so far with every delta, not only with the last.
    token_ids: send the output `token_ids`.
    logprobs: send the output `logprobs`, with `top_logprobs` alternatives per token.
    """

    chat: bool = False
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    inline_reasoning: bool = False
    enable_thinking: bool | None = None
    reasoning_open: bool | None = None
    tools: bool = False
    tool_choice: str = "auto"
    text_arguments: str = ""
    logprobs: bool = False
    top_logprobs: int = 0
    continuous_usage: bool = False
    token_ids: bool = False

    def to_parameters(self) -> dict[str, Parameter]:
        """The fields that differ from their defaults as Triton request parameters."""
        parameters: dict[str, Parameter] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                parameters[field.name] = json.dumps(list(value)) if isinstance(value, tuple) else value
        return parameters

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "AnswerOptions":
        """Read the options; parameters with other names are ignored.

        Raises RequestError naming a parameter whose value has the wrong type.
        """
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name in parameters:
                values[field.name] = _read(field.name, parameters[field.name], field.default)
        return cls(**values)


def _read(name: str, value: Any, default: Any) -> Any:
    if name == "stop":
        return _read_stop(value)
    if name == "stop_token_ids":
        return _read_ids(value)
    expected = bool if default is None else type(default)
    # bool is a subclass of int, but `top_logprobs: true` is a mistake of the caller.
    if type(value) is not expected:
        raise RequestError(f"parameter '{name}' must be {expected.__name__}, not {type(value).__name__}", param=name)
    if name == "text_arguments":
        _check_text_arguments(value)
    return value


def _check_text_arguments(value: Any) -> None:
    try:
        read_text_arguments(value)
    except (ValueError, RecursionError):
        text = "parameter 'text_arguments' must be a JSON object of arrays"
        raise RequestError(text, param="text_arguments") from None


def _read_stop(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        # A plain string is accepted as well as a JSON array, for requests typed by hand.
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            decoded = value
        value = decoded if isinstance(decoded, list) else [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError("parameter 'stop' must be a JSON array of strings", param="stop")
    return tuple(item for item in value if item)


def _read_ids(value: Any) -> tuple[int, ...]:
    try:
        decoded = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, list) or not all(type(item) is int for item in decoded):
        raise RequestError("parameter 'stop_token_ids' must be a JSON array of ids", param="stop_token_ids")
    return tuple(decoded)
