# SPDX-License-Identifier: Apache-2.0
"""State of the streams in progress; a stream that died without a last response is evicted."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

State = TypeVar("State")

# Longer than any gap between two responses of a live stream; a preempted request may wait for minutes.
IDLE_LIMIT_S = 900.0

StreamKey = tuple[str, int]


class Streams(Generic[State]):
    """State by stream, least recently used first, so that eviction checks only the front."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: OrderedDict[StreamKey, tuple[float, State]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, key: StreamKey) -> bool:
        return key in self._states

    def get(self, key: StreamKey, create: Callable[[], State]) -> State:
        """The stream's state, created on its first response."""
        now = self._clock()
        entry = self._states.pop(key, None)
        state = create() if entry is None else entry[1]
        self._states[key] = (now, state)
        self._evict(now)
        return state

    def end(self, key: StreamKey) -> None:
        """Forget a stream after its last response."""
        self._states.pop(key, None)

    def _evict(self, now: float) -> None:
        while self._states:
            key, (seen, _) = next(iter(self._states.items()))
            if now - seen < IDLE_LIMIT_S:
                return
            del self._states[key]
