# SPDX-License-Identifier: Apache-2.0
"""Concurrency slots with a bounded queue, for the requests of one model."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import ApiError
from frontend.telemetry.metrics import QUEUED


class Slots:
    """Concurrency slots with a bounded queue.

    At most max_in_flight + max_queued requests are inside `enter`; at most max_in_flight of them hold a slot.
    model: the metrics' label.
    """

    def __init__(self, max_in_flight: int, max_queued: int, queue_timeout: float, model: str = "") -> None:
        self._queue: deque[asyncio.Future[None]] = deque()
        self._waiting = QUEUED.labels(model)
        self.admitted = 0
        self.in_flight = 0
        self.resize(max_in_flight, max_queued, queue_timeout)

    def resize(self, max_in_flight: int, max_queued: int, queue_timeout: float) -> None:
        """Change the limits. Requests that are inside or wait already are not refused."""
        self._max_in_flight = max_in_flight
        self._queue_timeout = queue_timeout
        self.max_admitted = max_in_flight + max_queued
        while self._queue and self.in_flight < self._max_in_flight:
            self.in_flight += 1
            self.release()

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return len(self._queue)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count a request while the context is open. Raises ApiError if that would be one too many."""
        if self.admitted >= self.max_admitted:
            raise ApiError("overloaded", "Too many requests at once; try again later")
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def acquire(self) -> None:
        """Wait for a slot, which `release` gives back. Raises ApiError if none is free within queue_timeout."""
        if self.in_flight < self._max_in_flight and not self._queue:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._waiting.inc()
        try:
            async with asyncio.timeout(self._queue_timeout):
                await turn
        except BaseException as error:
            self._leave_queue(turn)
            if isinstance(error, TimeoutError):
                raise ApiError("overloaded", "The server is busy; try again later") from None
            raise
        finally:
            self._waiting.dec()

    def release(self) -> None:
        """Give a slot to the next request in the queue, if there is one."""
        # With less slots than before, those above the limit are given to no one.
        while self._queue and self.in_flight <= self._max_in_flight:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _leave_queue(self, turn: "asyncio.Future[None]") -> None:
        if turn in self._queue:
            self._queue.remove(turn)
        elif not turn.cancelled():
            # The slot was handed over in the same moment.
            self.release()
