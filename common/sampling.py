# SPDX-License-Identifier: Apache-2.0
"""The sampling parameters, each written once: its type, and its names on the way from a request to the engines.

`docs/adding-a-field.md` lists the other places of a sampling parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

Datatype = Literal["INT32", "UINT64", "FP32", "BOOL", "BYTES"]


@dataclass(frozen=True, slots=True)
class SamplingParameter:
    """How one field of `SamplingFields` travels. The OpenAI field, and the ensemble's input, have the field's name.

    datatype: of its tensor; None if it travels as a request parameter instead, which only Python engines read.
    engine_input: the input of the model `tensorrt_llm`.
    vllm, llmapi: the field of the engine's own `SamplingParams`; None if the engine has none and must refuse it.
    neutral: for a penalty, the value that changes nothing; not every sampler knows penalties.
    """

    datatype: Datatype | None
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


def _sampling(datatype: Datatype | None, **names: Any) -> Any:
    return field(default=None, metadata={"sampling": SamplingParameter(datatype, **names)})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingFields:
    """How to choose the tokens of an answer. None leaves the engine's (or the checkpoint's) default."""

    min_tokens: int | None = _sampling("INT32")
    temperature: float | None = _sampling("FP32")
    top_p: float | None = _sampling("FP32", engine_input="runtime_top_p")
    top_k: int | None = _sampling("INT32", engine_input="runtime_top_k")
    min_p: float | None = _sampling(None)
    repetition_penalty: float | None = _sampling("FP32", neutral=1.0)
    presence_penalty: float | None = _sampling("FP32", neutral=0.0)
    frequency_penalty: float | None = _sampling("FP32", neutral=0.0)
    seed: int | None = _sampling("UINT64")


# Field of SamplingFields -> how it travels.
SAMPLING: Mapping[str, SamplingParameter] = {
    one.name: one.metadata["sampling"].with_names(one.name) for one in fields(SamplingFields)
}


@dataclass(frozen=True, slots=True)
class EngineParameter:
    """A request parameter that only Python engines read. field: of `Generation`. asked_by: the OpenAI field, if any."""

    field: str
    kind: type[int] | type[float] | type[str]
    asked_by: str | None


# By name. Triton keeps the parameter "priority" for its own scheduler, and older versions have no parameter type for
# fractions, which travel as text.
ENGINE_PARAMETERS: Mapping[str, EngineParameter] = {
    **{name: EngineParameter(name, float, name) for name, one in SAMPLING.items() if one.datatype is None},
    "request_priority": EngineParameter("priority", int, "priority"),
    "prompt_logprobs": EngineParameter("prompt_logprobs", int, "echo"),
    "top_logprobs": EngineParameter("top_logprobs", int, "top_logprobs"),
    "traceparent": EngineParameter("traceparent", str, None),
}
