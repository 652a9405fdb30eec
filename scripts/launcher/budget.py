# SPDX-License-Identifier: Apache-2.0
"""How often a part may be started anew before that is called a crash loop."""

import time
from collections import defaultdict, deque
from collections.abc import Callable

# Long enough for a server that dies at the end of each slow start to be seen as looping.
WINDOW_S = 900.0
_BACKOFF_MOST_S = 30.0


class RestartBudget:
    """Counts the faults of each part within the last `WINDOW_S` seconds."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock = clock
        self._faults: defaultdict[str, deque[float]] = defaultdict(deque)

    def spend(self, part: str) -> int | None:
        """The number of this fault among the part's recent ones, 1 for the first; None where there were too many."""
        faults, now = self._faults[part], self._clock()
        while faults and now - faults[0] > WINDOW_S:
            faults.popleft()
        faults.append(now)
        return len(faults) if len(faults) <= self.most else None


def backoff_s(fault: int) -> float:
    """Seconds to wait before the n-th restart: the first at once, then 1, 2, 4, ..."""
    return 0.0 if fault <= 1 else min(2.0 ** (fault - 2), _BACKOFF_MOST_S)
