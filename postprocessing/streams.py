# SPDX-License-Identifier: Apache-2.0
"""State of the streams in progress; a stream that died without a last response is evicted."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State")

# Longer than any gap between two responses of a live stream; a preempted request may wait for minutes.
IDLE_LIMIT_S = 900.0

StreamKey = tuple[str, int]


@dataclass(slots=True)
class _Entry(Generic[State]):
    """The state of a stream, and when it was last used.

    seen: by the clock.
    """

    seen: float
    state: State


class Streams(Generic[State]):
    """State by stream, least recently used first, so that eviction checks only the front, for each new stream."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._states: OrderedDict[StreamKey, _Entry[State]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def __contains__(self, key: StreamKey) -> bool:
        return key in self._states

    def get(self, key: StreamKey, create: Callable[[], State]) -> State:
        """The stream's state, created on its first response."""
        state = self.find(key)
        if state is None:
            now, state = self._clock(), create()
            self._states[key] = _Entry(now, state)
            self._evict(now)
        return state

    def find(self, key: StreamKey) -> State | None:
        """The stream's state, or None if there is none."""
        entry = self._states.get(key)
        if entry is None:
            return None
        entry.seen = self._clock()
        self._states.move_to_end(key)
        return entry.state

    def end(self, key: StreamKey) -> None:
        """Forget a stream after its last response."""
        self._states.pop(key, None)

    def end_all(self, ended: Callable[[State], bool]) -> None:
        """Forget the streams whose state fulfils this condition."""
        for key in [key for key, entry in self._states.items() if ended(entry.state)]:
            del self._states[key]

    def _evict(self, now: float) -> None:
        while self._states:
            key, entry = next(iter(self._states.items()))
            if now - entry.seen < IDLE_LIMIT_S:
                return
            del self._states[key]
