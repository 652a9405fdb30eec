# SPDX-License-Identifier: Apache-2.0
"""The queue between the reader of the stream and the task of a request."""

import asyncio

from frontend.triton.tensors import Delta

Deltas = list[tuple[int, Delta]]


class ResponseQueue:
    """The deltas of one generation, with their choices; `fail` ends it early.

    `take` returns all waiting deltas at once, so that a slow reader gets few large ones, a fast one many small.
    """

    def __init__(self) -> None:
        self._waiting: Deltas = []
        self._size = 0
        self._error: Exception | None = None
        self._filled = asyncio.Event()

    def put(self, choice: int, delta: Delta, size: int) -> None:
        """Add a delta. size: its bytes, more or less."""
        self._waiting.append((choice, delta))
        self._size += size
        self._filled.set()

    def size(self) -> int:
        """Return the size of the waiting deltas in bytes, more or less."""
        return self._size

    def fail(self, error: Exception) -> None:
        """End with an error, after the waiting deltas. Only the first error counts."""
        if self._error is None:
            self._error = error
        self._filled.set()

    async def take(self) -> Deltas:
        """Wait for deltas and return all of them; raises the error given to `fail` if none are left."""
        await self._filled.wait()
        if not self._waiting:
            assert self._error is not None  # nosec B101 # narrows a type, checks no input
            raise self._error
        taken, self._waiting, self._size = self._waiting, [], 0
        if self._error is None:
            self._filled.clear()
        return taken
