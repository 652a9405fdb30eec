# SPDX-License-Identifier: Apache-2.0
"""Limit how often each stream writes, so that all streams of a process together stay within its CPU time.

The cost of a chunk hardly depends on the number of its tokens: most of it is the socket write. With few streams, or
streams slower than their share, there is no wait. Beyond that each chunk holds the tokens that came during the wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

CHUNK_COST = 2.5e-5  # seconds of one core for one chunk, measured from the row of a batch to the socket's write
NOTICEABLE = 2e-3  # seconds; shorter waits cost more in timers than they save


class WriteThrottle:
    """Gives each open stream an equal share of the chunks that the process can write. Enter it once for each stream."""

    def __init__(self) -> None:
        # Seconds between two writes of a stream; 0 with few streams.
        self.pause = 0.0
        self._streams = 0
        self._due: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "WriteThrottle":
        self._count(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    def call_at(self, when: float, write: Callable[[], None]) -> None:
        """Call `write` at this time of `perf_counter`, or soon after: one timer serves all streams."""
        self._due.append((when, write))
        if self._timer is None:
            self._start_timer()

    def _count(self, change: int) -> None:
        self._streams += change
        share = self._streams * CHUNK_COST
        self.pause = share if share >= NOTICEABLE else 0.0

    def _start_timer(self) -> None:
        delay = self._due[0][0] - time.perf_counter()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, delay), self._call_due)

    def _call_due(self) -> None:
        self._timer = None
        # Streams come in the order of their times, unless their number has just changed.
        soon = time.perf_counter() + NOTICEABLE / 2
        try:
            while self._due and self._due[0][0] <= soon:
                self._due.popleft()[1]()
        finally:
            if self._due and self._timer is None:
                self._start_timer()
