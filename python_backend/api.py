# SPDX-License-Identifier: Apache-2.0
"""The API that Triton's Python backend gives to its models, with types. Importable only inside that backend.

Every other module takes `pb_utils` from here. Triton adds the classes to it only after it has imported a model's
`model.py`: use them as `pb_utils.Tensor(...)` when a request is handled, and never bind one to a name at import.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, overload

import numpy.typing as npt
import triton_python_backend_utils


class Tensor(Protocol):
    """One input or output of a request."""

    def name(self) -> str:
        """The name in the model's config."""

    def as_numpy(self) -> npt.NDArray[Any]:
        """The values, strings as an object array of bytes."""

    def to_dlpack(self) -> Any:
        """A DLPack capsule that shares the tensor's memory."""


class TritonError(Protocol):
    """An error of a response."""

    def message(self) -> str:
        """The text."""


class InferenceResponse(Protocol):
    """One response to a request: output tensors, or an error."""

    def has_error(self) -> bool:
        """Whether it is an error."""

    def error(self) -> TritonError:
        """The error; only if there is one."""

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""


class ResponseSender(Protocol):
    """Sends the responses of one request of a decoupled model, from any thread."""

    def send(self, response: InferenceResponse = ..., flags: int = ...) -> None:
        """Send one response; the flag FINAL ends the request."""

    def is_cancelled(self) -> bool:
        """Whether the client cancelled the request or disconnected."""


class InferenceRequest(Protocol):
    """One request to a model."""

    def inputs(self) -> list[Tensor]:
        """The inputs that the request has."""

    def request_id(self) -> str:
        """The client's id of the request, or an empty string."""

    def parameters(self) -> str:
        """The request's parameters as a JSON object, or an empty string."""

    def requested_output_names(self) -> set[str]:
        """The outputs to send."""

    def get_response_sender(self) -> ResponseSender:
        """The way to answer when `execute` has returned None."""


class ModelCall(InferenceRequest, Protocol):
    """A request that this process sends to another model of the same server."""

    @overload
    def exec(self, decoupled: Literal[True]) -> Iterator[InferenceResponse]: ...

    @overload
    def exec(self) -> InferenceResponse: ...


class Metric(Protocol):
    """One metric of a family, with its labels."""

    def increment(self, value: float) -> None:
        """Add to a counter or a gauge."""

    def set(self, value: float) -> None:
        """Set a gauge."""


class MetricFamily(Protocol):
    """Metrics of one name. It must outlive them."""

    def Metric(self, labels: Mapping[str, str]) -> Metric:
        """Create the metric with these labels."""


class _TensorClass(Protocol):
    def __call__(self, name: str, array: npt.NDArray[Any]) -> Tensor: ...

    def from_dlpack(self, name: str, tensor: Any) -> Tensor: ...


class _MetricFamilyClass(Protocol):
    COUNTER: object
    GAUGE: object

    def __call__(self, name: str, description: str, kind: object) -> MetricFamily: ...


# The members below hide these names inside their class.
_Tensors: TypeAlias = Sequence[Tensor]
_Error: TypeAlias = TritonError


class _Utilities(Protocol):
    TRITONSERVER_RESPONSE_COMPLETE_FINAL: int
    Tensor: _TensorClass
    MetricFamily: _MetricFamilyClass

    def TritonError(self, message: str) -> TritonError: ...

    def InferenceResponse(self, output_tensors: _Tensors = ..., error: _Error = ...) -> InferenceResponse: ...

    def InferenceRequest(
        self,
        *,
        model_name: str,
        requested_output_names: Sequence[str],
        inputs: _Tensors,
        request_id: str = ...,
        parameters: Mapping[str, str | int | bool] = ...,
    ) -> ModelCall: ...


pb_utils: _Utilities = triton_python_backend_utils
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
