# SPDX-License-Identifier: Apache-2.0
"""Read the inputs of a request as Python values, and build output tensors and error responses.

For models whose tensors hold strings; they need numpy < 2 with the embedded tritonserver.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import RequestError
from python_backend.api import InferenceRequest, InferenceResponse, Tensor, pb_utils


class Inputs:
    """The inputs of one request of batch 1 by name. Every reader returns None if the input is absent.

    Readers raise RequestError for an input without a row: Triton 24.10 refuses most batches of 0 itself.
    """

    def __init__(self, request: InferenceRequest) -> None:
        self._tensors = {tensor.name(): tensor for tensor in request.inputs()}

    def array(self, name: str) -> npt.NDArray[Any] | None:
        """The input as an array without its batch dimension."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return None
        rows: npt.NDArray[Any] = tensor.as_numpy()
        if not len(rows):
            raise RequestError(f"'{name}' has no row", param=name)
        first: npt.NDArray[Any] = rows[0]
        return first

    def ints(self, name: str) -> tuple[int, ...] | None:
        """An INT32 [-1] input."""
        array = self.array(name)
        return None if array is None else tuple(array.flatten().tolist())

    def floats(self, name: str) -> tuple[float, ...] | None:
        """An FP32 [-1] input."""
        array = self.array(name)
        return None if array is None else tuple(array.flatten().tolist())

    def number(self, name: str) -> int | None:
        """An INT32 [1] input."""
        values = self.ints(name)
        return values[0] if values else None

    def blobs(self, name: str) -> tuple[bytes, ...] | None:
        """A STRING [-1] input as bytes."""
        array = self.array(name)
        return None if array is None else tuple(array.flatten().tolist())

    def strings(self, name: str) -> tuple[str, ...] | None:
        """A STRING [-1] input as text; raises RequestError if it is not UTF-8."""
        blobs = self.blobs(name)
        return None if blobs is None else tuple(_decode(name, blob) for blob in blobs)

    def string(self, name: str) -> str | None:
        """A STRING [1] input as text."""
        values = self.strings(name)
        return values[0] if values else None


def ints(name: str, values: npt.ArrayLike, dtype: npt.DTypeLike = np.int32) -> Tensor:
    """An integer output with its batch dimension."""
    return pb_utils.Tensor(name, np.array([values], dtype=dtype))


def floats(name: str, values: npt.ArrayLike) -> Tensor:
    """An FP32 output with its batch dimension."""
    return pb_utils.Tensor(name, np.array([values], dtype=np.float32))


def string(name: str, value: str) -> Tensor:
    """A STRING [1] output. A lone surrogate cannot be UTF-8 and becomes a question mark."""
    return pb_utils.Tensor(name, np.array([[value.encode(errors="replace")]], dtype=object))


def error_response(error: RequestError) -> InferenceResponse:
    """A response that carries the error to the frontend."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(error.encode()))


def _decode(name: str, blob: bytes) -> str:
    try:
        return blob.decode()
    except UnicodeDecodeError:
        raise RequestError(f"'{name}' is not valid UTF-8", param=name) from None
