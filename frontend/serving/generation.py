# SPDX-License-Identifier: Apache-2.0
"""One generation: the Triton requests of all choices of an answer, started, read and ended together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tritonclient.grpc import service_pb2 as pb

from common.errors import Kind, RequestError
from frontend.errors import AdapterNotCached, upstream_error
from frontend.telemetry.request_record import current
from frontend.triton.deltas import merge
from frontend.triton.receiver import Target
from frontend.triton.response_queue import Listener, ResponseQueue
from frontend.triton.stream import TritonStream
from frontend.triton.tensors import Delta, add_trace_context, with_weights

# The engine's finish reasons that are errors.
_FAILED_FINISHES: dict[str, tuple[str, Kind]] = {
    "cancelled": ("The engine cancelled the request", "unavailable"),
    "timeout": ("The engine ran out of time", "timeout"),
}


class Generation:
    """Yields deltas by choice until every choice has its finish_reason.

    Call `close` at the end: it stops the requests that have not finished.
    """

    def __init__(self, stream: TritonStream, target: Target, requests: Sequence[pb.ModelInferRequest]) -> None:
        self._stream = stream
        self._target = target
        # Until the first response; then only their ids.
        self._requests = requests
        self._ids = [request.id for request in requests]
        self._responses = ResponseQueue()
        self._running = set(range(len(requests)))
        self._trace = current().trace
        # Whether the requests may be sent again with the weights of their adapter: at most once, before any response.
        self._may_resend = True
        # What ended the generation, while the deltas before it are read.
        self._failure: RequestError | None = None
        # What ended it from outside, also if that comes between an answer to its requests and their repetition.
        self._ended_by: Exception | None = None

    async def start(self) -> None:
        """Send the requests to Triton."""
        trace_headers = None if self._trace is None else self._trace.begin_triton(len(self._requests))
        for request in self._requests if trace_headers else ():
            add_trace_context(request, trace_headers or {})
        await self._stream.submit(self._requests, self._responses, self._target, trace_headers)

    @property
    def running(self) -> bool:
        """Whether a choice has not finished, or a failure has not been raised yet."""
        return bool(self._running) or self._failure is not None

    def backlog(self) -> int:
        """Return the number of received bytes that `next` has not taken yet."""
        return self._responses.size()

    @property
    def generated(self) -> Mapping[int, int]:
        """The tokens that came for each choice so far, those that `next` has not taken yet included."""
        return self._responses.generated

    @property
    def listened(self) -> bool:
        """Whether what waits is left to the listener of `next`."""
        return self._responses.listened

    def wake(self) -> None:
        """Let `next` return what waits."""
        self._responses.wake()

    def take_waiting(self) -> dict[int, Delta]:
        """Return what waits, as `next` does: for its listener, if that neither ends a choice nor fails."""
        waiting: dict[int, list[Delta]] = {}
        for choice, delta in self._responses.take_waiting():
            if choice in self._running:
                waiting.setdefault(choice, []).append(delta)
        return {choice: merge(several) for choice, several in waiting.items()}

    async def next(self, listener: Listener | None = None) -> dict[int, Delta]:
        """Wait for responses and return one delta for each choice that has some. Raises what ended the generation.

        listener: takes what comes while this waits, but for what ends a choice or fails, which this returns.
        """
        while self._failure is None:
            waiting: dict[int, list[Delta]] = {}
            try:
                deltas = await self._responses.take(listener)
            except AdapterNotCached:
                if not self._may_resend:
                    raise
                await self._resend()
                continue
            self._may_resend, self._requests = False, ()
            for choice, delta in deltas:
                if choice not in self._running:
                    continue
                try:
                    self._check_finish(choice, delta)
                except RequestError as failure:
                    self._failure = failure
                    delta = replace(delta, error=None, finish_reason=None, final=False)
                waiting.setdefault(choice, []).append(delta)
                if self._failure is not None:
                    break
            made = {choice: merge(several) for choice, several in waiting.items()}
            # What came before the failure belongs to the answer.
            if made and (self._failure is None or any(map(_has_content, made.values()))):
                return made
        raise self._failure

    def fail(self, error: Exception) -> None:
        """End the generation from outside: stop its requests in Triton, and raise the error from `next`."""
        if self._ended_by is None:
            self._ended_by = error
        self._responses.fail(error)
        self.close()

    def close(self) -> None:
        """Stop the requests that have not finished."""
        for choice in self._running:
            self._stream.cancel(self._ids[choice])
        if self._trace is not None:
            self._trace.end_triton()

    async def _resend(self) -> None:
        """Send all requests again, under new ids, with the weights of their adapter; raises the error of `fail`."""
        if self._ended_by is not None:
            raise self._ended_by
        self._may_resend = False
        for request in self._requests:
            self._stream.cancel(request.id)
        self._requests = [with_weights(request) for request in self._requests]
        self._ids = [request.id for request in self._requests]
        self._responses = ResponseQueue()
        await self._stream.submit(self._requests, self._responses, self._target)

    def _check_finish(self, choice: int, delta: Delta) -> None:
        if delta.error is not None:
            self._running.discard(choice)
            raise upstream_error(delta.error)
        if delta.finish_reason is None and not delta.final:
            return
        self._running.discard(choice)
        if delta.finish_reason is None:
            raise RequestError("The engine ended the answer without a finish reason", kind="internal")
        if delta.finish_reason in _FAILED_FINISHES:
            message, kind = _FAILED_FINISHES[delta.finish_reason]
            raise RequestError(message, kind=kind)


def _has_content(delta: Delta) -> bool:
    return bool(delta.text or delta.reasoning or delta.tool_calls)
