# SPDX-License-Identifier: Apache-2.0
"""Who may come in: so many requests at work, so many waiting behind them, and nobody beyond that."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from frontend.errors import ApiError
from frontend.telemetry.metrics import QUEUED


class Admission:
    """Bounds the requests of one process.

    `enter` lets max_in_flight + max_queued requests in, whose bodies may be read, and refuses the next at once.
    `acquire` gives max_in_flight of them a place, first come, first served; who gets none in queue_timeout seconds is
    refused. So nobody waits longer than that for an engine that is given no more than it can take.
    """

    def __init__(self, max_in_flight: int, max_queued: int, queue_timeout: float) -> None:
        self._max_in_flight = max_in_flight
        self._max_inside = max_in_flight + max_queued
        self._queue_timeout = queue_timeout
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.inside = 0
        self.in_flight = 0
        self.draining = False

    @property
    def queued(self) -> int:
        """Requests that wait for a place."""
        return len(self._waiting)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Come in with a request; raises ApiError where that would be one too many."""
        if self.draining:
            raise ApiError("overloaded", "The server is shutting down")
        if self.inside >= self._max_inside:
            raise ApiError("overloaded", "Too many requests at once; try again later")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def acquire(self) -> None:
        """Wait for a place, to be given back with `release`; raises ApiError where none gets free in time."""
        if self.in_flight < self._max_in_flight and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        QUEUED.inc()
        try:
            async with asyncio.timeout(self._queue_timeout):
                await turn
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                raise ApiError("overloaded", "The server is busy; try again later") from None
            raise
        finally:
            QUEUED.dec()

    def release(self) -> None:
        """Hand the place to the next who waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _give_up(self, turn: "asyncio.Future[None]") -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif not turn.cancelled():
            # The turn came in the same moment.
            self.release()
