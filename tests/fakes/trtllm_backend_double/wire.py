# SPDX-License-Identifier: Apache-2.0
"""The tensors of the double: a request's inputs, and responses with only the contract's outputs."""

from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from executor import Request, Result

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
COUNTS = ("num_input_tokens", "num_output_tokens")


class RequestInputs:
    """The inputs of one Triton request by name, with their batch dimension; unknown names are ignored."""

    def __init__(self, request: Any) -> None:
        self.names = {tensor.name() for tensor in request.inputs()}
        # numpy has no bfloat16.
        tensors = [tensor for tensor in request.inputs() if tensor.name() != "prompt_embedding_table"]
        self._arrays = {tensor.name(): tensor.as_numpy() for tensor in tensors}

    def array(self, name: str) -> Any:
        return self._arrays.get(name)

    def summary(self) -> dict[str, Any]:
        """The names of all inputs, with the values of those that are single numbers."""
        sized = {name: array for name, array in self._arrays.items() if array.size == 1 and array.dtype != object}
        return {name: sized[name].item() if name in sized else None for name in self.names}

    def scalar(self, name: str, default: Any, row: int = 0) -> Any:
        array = self.array(name)
        return default if array is None else array.flatten()[row].item()

    @property
    def batch(self) -> int:
        return len(self._arrays["input_ids"])

    def prompt(self, row: int) -> list[int]:
        """The ids of a row, cut at input_lengths unless the batch is 1."""
        ids = self._arrays["input_ids"][row].tolist()
        return ids if self.batch == 1 else ids[: self.scalar("input_lengths", len(ids), row)]


def words(array: Any, row: int) -> list[list[int]]:
    """The words of a row of [batch, 2, n]: first the flat ids, then the end offset of each word, padded with -1."""
    if array is None:
        return []
    ids, ends = array[row].tolist()
    ends = [end for end in ends if end >= 0]
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class Call:
    """One Triton request and its responses; the final flag is on the last result of the last sequence."""

    def __init__(
        self, inputs: RequestInputs, names: set[str], sender: Any, requests: "list[Request]", excludes_input: bool
    ) -> None:
        self._inputs, self._names, self._sender, self._requests = inputs, names, sender, requests
        self._left = len(requests)
        self._excludes_input = bool(inputs.scalar("exclude_input_in_output", excludes_input))

    def send(self, result: "Result") -> None:
        """Send one result; fails like the backend if the client did not request the mandatory outputs."""
        if self._left == 0:
            return
        missing = [name for name in ("output_ids", "sequence_length") if name not in self._names]
        if missing:
            error = "Error encountered while populating response"
            self.fail(f"{error}: {missing[0]} tensor must be present in list of output tensors")
            return
        self._left -= result.final
        flags = FINAL if self._left == 0 else 0
        self._sender.send(pb_utils.InferenceResponse(self._tensors(result)), flags=flags)

    def fail(self, text: str) -> None:
        """Send a Triton error, which ends the request."""
        if self._left > 0:
            self._left = 0
            self._sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(text)), flags=FINAL)

    def cancel(self) -> None:
        """Cancel; the executor ends each request with a final result without ids."""
        for request in self._requests:
            request.cancelled.set()

    def abandoned(self) -> bool:
        return self._left > 0 and bool(self._sender.is_cancelled())

    def _tensors(self, result: "Result") -> list[Any]:
        request, beams = result.request, result.beams
        if not request.streaming and not self._excludes_input:
            beams = [[*request.prompt, *beam] for beam in beams]
        longest = max(map(len, beams))
        padded = [[*beam, *[-1] * (longest - len(beam))] for beam in beams]
        tensors = [
            _tensor("output_ids", [padded], np.int32),
            _tensor("sequence_length", [[len(beam) for beam in beams]], np.int32),
        ]
        if self._inputs.batch > 1:
            tensors.append(_tensor("batch_index", [[request.batch_index]], np.int32))
        if self._inputs.scalar("num_return_sequences", 1) > 1:
            tensors.append(_tensor("sequence_index", [[request.sequence_index]], np.int32))
        if self._inputs.scalar("return_log_probs", False):
            # Each response of a stream has those of all tokens so far.
            tensors += [
                _tensor("output_log_probs", [[[-0.5] * result.total] * len(beams)], np.float32),
                _tensor("cum_log_probs", [[-0.5 * result.total] * len(beams)], np.float32),
            ]
        for name, value in zip(COUNTS, (len(request.prompt), sum(map(len, beams))), strict=True):
            if self._inputs.scalar(f"return_{name}", False):
                tensors.append(_tensor(name, [[value]], np.int32))
        asked = [tensor for tensor in tensors if tensor.name() in self._names]
        return asked + (_performance(result) if self._inputs.scalar("return_perf_metrics", False) else [])


def _performance(result: "Result") -> list[Any]:
    """Outputs of return_perf_metrics, sent even if they are not requested by name; times are 0 until they are known."""
    times = {
        "arrival_time_ns": result.first_token_time_ns,
        "first_scheduled_time_ns": result.first_token_time_ns,
        "first_token_time_ns": result.first_token_time_ns,
        "last_token_time_ns": result.last_token_time_ns,
    }
    blocks = ("kv_cache_alloc_new_blocks", "kv_cache_reused_blocks", "kv_cache_alloc_total_blocks")
    drafts = ("total_accepted_draft_tokens", "total_draft_tokens")
    return [
        *(_tensor(name, [[value]], np.int64) for name, value in times.items()),
        *(_tensor(name, [[0]], np.int32) for name in (*blocks, *drafts)),
        _tensor("acceptance_rate", [[0.0]], np.float32),
    ]


def _tensor(name: str, value: Any, dtype: Any) -> Any:
    return pb_utils.Tensor(name, np.array(value, dtype=dtype))
