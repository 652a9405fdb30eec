# SPDX-License-Identifier: Apache-2.0
"""How often a part may be restarted before it counts as a crash loop."""

import time
from collections import defaultdict, deque
from collections.abc import Callable

# Longer than a few slow starts, so that a server that dies at the end of each one counts as looping.
WINDOW_S = 900.0
_BACKOFF_MOST_S = 30.0


class RestartBudget:
    """Counts the faults of each part within the last `WINDOW_S` seconds."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._faults: defaultdict[str, deque[float]] = defaultdict(deque)

    def spend(self, part: str) -> int | None:
        """Count a fault; returns its number among the part's recent ones, from 1, or None if there were too many."""
        self._faults[part].append(self._clock())
        count = self.recent(part)
        return count if count <= self.most else None

    def recent(self, part: str) -> int:
        """The number of a part's recent faults."""
        faults, now = self._faults[part], self._clock()
        while faults and now - faults[0] > WINDOW_S:
            faults.popleft()
        return len(faults)


def backoff_s(fault: int) -> float:
    """Seconds to wait before the n-th restart: 0, then 1, 2, 4, ..."""
    return 0.0 if fault <= 1 else min(2.0 ** (fault - 2), _BACKOFF_MOST_S)
