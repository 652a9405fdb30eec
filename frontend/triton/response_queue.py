# SPDX-License-Identifier: Apache-2.0
"""Where the stream's reader leaves what Triton answered, until the request's own task takes it."""

import asyncio

from tritonclient.grpc import service_pb2 as pb

Responses = list[tuple[int, pb.ModelInferResponse]]


class ResponseQueue:
    """Responses of one generation by choice. Whatever ends a generation early is put in with `fail`.

    `take` gives all that waits at once, so that a slow reader gets few large deltas and a fast one many small ones.
    """

    def __init__(self) -> None:
        self._waiting: Responses = []
        self._error: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, choice: int, response: pb.ModelInferResponse) -> None:
        self._waiting.append((choice, response))
        self._filled.set()

    def size(self) -> int:
        """Bytes that wait."""
        return sum(response.ByteSize() for _, response in self._waiting)

    def fail(self, error: Exception) -> None:
        """End with an error, after what already waits; the first error counts."""
        if self._error is None:
            self._error = error
        self._filled.set()

    async def take(self) -> Responses:
        """All responses that wait, at least one; raises the error given to `fail` once there are none left."""
        await self._filled.wait()
        if not self._waiting:
            assert self._error is not None  # nosec B101 # narrows a type, checks no input
            raise self._error
        taken, self._waiting = self._waiting, []
        if self._error is None:
            self._filled.clear()
        return taken
