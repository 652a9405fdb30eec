# SPDX-License-Identifier: Apache-2.0
"""A fake of the module that Triton's Python backend provides to its models: the parts that unit tests use."""

from typing import Any, ClassVar

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


class MetricFamily:
    """A metric family that records what is done to its one metric; `made` has the families by name."""

    GAUGE, COUNTER = "gauge", "counter"
    made: ClassVar["dict[str, MetricFamily]"] = {}

    def __init__(self, name: str, description: str, kind: str) -> None:
        self.kind = kind
        self.calls: list[float] = []
        self.labels: dict[str, str] = {}
        MetricFamily.made[name] = self

    def Metric(self, labels: dict[str, str]) -> "MetricFamily":
        self.labels = labels
        return self

    def set(self, value: float) -> None:
        assert self.kind == self.GAUGE
        self.calls.append(value)

    def increment(self, value: float) -> None:
        assert self.kind == self.COUNTER
        self.calls.append(value)


class Tensor:
    """A named numpy array, or any other tensor that DLPack knows."""

    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array

    @classmethod
    def from_dlpack(cls, name: str, tensor: Any) -> "Tensor":
        return cls(name, tensor)

    def to_dlpack(self) -> Any:
        return self._array


class TritonError:
    """An error's text."""

    def __init__(self, message: str) -> None:
        self._message = message

    def message(self) -> str:
        return self._message


class InferenceResponse:
    """Output tensors, or an error."""

    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self.output_tensors, self.error = list(output_tensors), error
