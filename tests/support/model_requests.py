# SPDX-License-Identifier: Apache-2.0
"""Requests to Triton's Python models and the outputs of their responses, with the fake of Triton's API."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from python_backend.api import Tensor, pb_utils

Value = str | bytes | int | bool | Sequence[Any]


class ModelRequest:
    """A request of batch 1: texts become STRING [1] inputs, numbers INT32 [1], sequences arrays of their own shape."""

    def __init__(
        self,
        request_id: str = "r",
        parameters: Mapping[str, Any] | None = None,
        requested: Sequence[str] = (),
        **inputs: Value,
    ) -> None:
        self._id, self._parameters, self._requested = request_id, json.dumps(parameters or {}), set(requested)
        self._inputs = [pb_utils.Tensor(name, _array(value)) for name, value in inputs.items()]

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def request_id(self) -> str:
        return self._id

    def parameters(self) -> str:
        return self._parameters

    def requested_output_names(self) -> set[str]:
        return self._requested


class ModelCalls:
    """Stands in for `pb_utils.InferenceRequest`: records the requests to other models and answers with `error`."""

    def __init__(self, error: str | None = None) -> None:
        self.sent: list[dict[str, Any]] = []
        self._error = error

    def __call__(self, *, inputs: Sequence[Tensor], **fields: Any) -> "ModelCalls":
        self.sent.append({**fields, "inputs": {tensor.name(): tensor.as_numpy().tolist() for tensor in inputs}})
        return self

    def exec(self, decoupled: bool = False) -> Any:
        return self._responses() if decoupled else next(self._responses())

    def _responses(self) -> Iterator[Any]:
        yield _Response(self._error)


class _Response:
    def __init__(self, error: str | None) -> None:
        self._error = error

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> Any:
        return pb_utils.TritonError(self._error or "")


def outputs(response: Any) -> dict[str, Any]:
    """The outputs of the fake's response by name as nested lists without the batch dimension, texts decoded."""
    assert response.error is None, response.error.message()
    return {tensor.name(): _decoded(tensor.as_numpy()[0].tolist()) for tensor in response.output_tensors}


def _array(value: Value) -> Any:
    if isinstance(value, str | bytes):
        return np.array([[value.encode() if isinstance(value, str) else value]], object)
    if isinstance(value, bool | int):
        return np.array([[value]], bool if isinstance(value, bool) else np.int32)
    array = np.array([value])
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value
