# SPDX-License-Identifier: Apache-2.0
"""The queue between the reader of the stream and the task of a request."""

import asyncio

from tritonclient.grpc import service_pb2 as pb

Responses = list[tuple[int, pb.ModelInferResponse]]


class ResponseQueue:
    """The responses of one generation, with their choices; `fail` ends it early.

    `take` returns all waiting responses at once, so that a slow reader gets few large deltas, a fast one many small.
    """

    def __init__(self) -> None:
        self._waiting: Responses = []
        self._error: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, choice: int, response: pb.ModelInferResponse) -> None:
        """Add a response."""
        self._waiting.append((choice, response))
        self._filled.set()

    def size(self) -> int:
        """Return the size of the waiting responses in bytes."""
        return sum(response.ByteSize() for _, response in self._waiting)

    def fail(self, error: Exception) -> None:
        """End with an error, after the waiting responses. Only the first error counts."""
        if self._error is None:
            self._error = error
        self._filled.set()

    async def take(self) -> Responses:
        """Wait for responses and return all of them; raises the error given to `fail` if none are left."""
        await self._filled.wait()
        if not self._waiting:
            assert self._error is not None  # nosec B101 # narrows a type, checks no input
            raise self._error
        taken, self._waiting = self._waiting, []
        if self._error is None:
            self._filled.clear()
        return taken
