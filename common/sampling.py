# SPDX-License-Identifier: Apache-2.0
"""The sampling parameters, each written once: its type, its allowed values, and its names on the way to the engines.

`docs/adding-a-field.md` lists the other places of a sampling parameter.
"""

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from common.errors import RequestError

Datatype = Literal["INT32", "UINT64", "FP32", "BOOL", "BYTES"]

INT32_MAX = 2**31 - 1
UINT64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """The least and the greatest value that a number may have."""

    low: float
    high: float

    def check(self, value: float, name: str) -> None:
        """Raise RequestError with param `name` if the value is outside, or is not a number."""
        if self.low <= value <= self.high:
            return
        # A fraction travels in single precision, which has its own nearest values for limits such as 0.01.
        if not isinstance(value, float) or value not in (_single(self.low), _single(self.high)):
            raise RequestError(f"{name} must be from {self.low} to {self.high}, not {value}", param=name)


def _single(value: float) -> float:
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded


@dataclass(frozen=True, slots=True)
class SamplingParameter:
    """How one field of `SamplingFields` travels. The OpenAI field, and the ensemble's input, have the field's name.

    datatype: of its tensor; None if it travels as a request parameter instead, which only Python engines read.
    kind: of such a parameter. limits: its allowed values, at each way into the server.
    engine_input: the input of the model `tensorrt_llm`.
    vllm, llmapi: the field of the engine's own `SamplingParams`; None if the engine has none and must refuse it.
    neutral: for a penalty, the value that changes nothing; not every sampler knows penalties.
    """

    datatype: Datatype | None
    limits: Limits
    kind: type[int] | type[float] = float
    engine_input: str = ""
    vllm: str | None = ""
    llmapi: str | None = ""
    neutral: float | None = None

    def with_names(self, name: str) -> "SamplingParameter":
        """A copy whose empty names are `name`."""
        return replace(
            self,
            engine_input=self.engine_input or name,
            vllm=name if self.vllm == "" else self.vllm,
            llmapi=name if self.llmapi == "" else self.llmapi,
        )


def _sampling(datatype: Datatype | None, low: float = -math.inf, high: float = math.inf, **names: Any) -> Any:
    return field(default=None, metadata={"sampling": SamplingParameter(datatype, Limits(low, high), **names)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingFields:
    """How to choose the tokens of an answer. None leaves the engine's (or the checkpoint's) default."""

    min_tokens: int | None = _sampling("INT32", 0, INT32_MAX)
    # Tokens of reasoning, after which the engine closes it; -1 for no limit.
    thinking_token_budget: int | None = _sampling(None, -1, INT32_MAX, kind=int, llmapi=None)
    # OpenAI's and vLLM's range.
    temperature: float | None = _sampling("FP32", 0, 2)
    top_p: float | None = _sampling("FP32", 0, 1, engine_input="runtime_top_p")
    top_k: int | None = _sampling("INT32", -1, INT32_MAX, engine_input="runtime_top_k")
    min_p: float | None = _sampling(None, 0, 1)
    # Logits divided by a much smaller penalty overflow.
    repetition_penalty: float | None = _sampling("FP32", 0.01, 10, neutral=1.0)
    presence_penalty: float | None = _sampling("FP32", -2, 2, neutral=0.0)
    frequency_penalty: float | None = _sampling("FP32", -2, 2, neutral=0.0)
    seed: int | None = _sampling("UINT64", 0, UINT64_MAX)


# Field of SamplingFields -> how it travels.
SAMPLING: Mapping[str, SamplingParameter] = {
    one.name: one.metadata["sampling"].with_names(one.name) for one in fields(SamplingFields)
}


def read_token_ids(value: Any) -> tuple[int, ...]:
    """Read a JSON array of token ids; raises ValueError if it is none."""
    ids = json.loads(value)
    if not isinstance(ids, list) or not all(type(one) is int and 0 <= one <= INT32_MAX for one in ids):
        raise ValueError
    return tuple(ids)


# Kind of a request parameter -> what its values are called in errors.
_NOUNS: Mapping[Callable[[Any], Any], str] = {read_token_ids: "a JSON array of token ids", str: "a text"}


@dataclass(frozen=True, slots=True)
class EngineParameter:
    """A request parameter that only Python engines read.

    field: of `Generation`. kind: reads its value. asked_by: the OpenAI field, if any. limits: of a number.
    """

    field: str
    kind: Callable[[Any], Any]
    asked_by: str | None
    limits: Limits | None = None

    def read(self, value: Any, name: str) -> Any:
        """The parameter's value; raises RequestError with param `name` for one of another kind or beyond the limits."""
        try:
            read = self.kind(value)
        # An infinite number is no integer.
        except (TypeError, ValueError, OverflowError, RecursionError):
            noun = _NOUNS.get(self.kind, "a number")
            raise RequestError(f"parameter '{name}' must be {noun}", param=name) from None
        if self.limits is not None and isinstance(read, int | float):
            self.limits.check(read, name)
        return read


PRIORITY = Limits(-(2**31), INT32_MAX)

# By name. Triton keeps the parameter "priority" for its own scheduler, and older versions have no parameter type for
# fractions, which travel as text.
ENGINE_PARAMETERS: Mapping[str, EngineParameter] = {
    **{
        name: EngineParameter(name, one.kind, name, one.limits)
        for name, one in SAMPLING.items()
        if one.datatype is None
    },
    "request_priority": EngineParameter("priority", int, "priority", PRIORITY),
    "prompt_logprobs": EngineParameter("prompt_logprobs", int, "prompt_logprobs", Limits(0, INT32_MAX)),
    "prompt_token_ids": EngineParameter("return_prompt_ids", bool, "return_token_ids"),
    "top_logprobs": EngineParameter("top_logprobs", int, "top_logprobs", Limits(0, INT32_MAX)),
    "allowed_token_ids": EngineParameter("allowed_token_ids", read_token_ids, "allowed_token_ids"),
    "cache_salt": EngineParameter("cache_salt", str, "cache_salt"),
    "traceparent": EngineParameter("traceparent", str, None),
}


def check_sampling(values: Mapping[str, Any]) -> None:
    """Raise RequestError naming the first field whose value is outside its limits; None is not given."""
    for name, value in values.items():
        if value is not None:
            SAMPLING[name].limits.check(value, name)
