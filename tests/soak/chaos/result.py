# SPDX-License-Identifier: Apache-2.0
"""What came of a run."""

from collections import Counter
from dataclasses import dataclass, field


class WrongAnswer(Exception):
    """An answer with another content than the script's, or in another shape than documented."""


@dataclass
class ChaosResult:
    """Counts of a run.

    ends: of requests, by kind. wrong: answers that were not as they must be; each is a fault. gaps: seconds without an
    answer, by the disturbance that each began with. disturbances: how often each was done.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    gaps: dict[str, list[float]] = field(default_factory=dict)
    disturbances: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """How many requests have ended."""
        return self.ends.total()

    @property
    def hangs(self) -> int:
        """Requests that had not ended long after every limit."""
        return self.ends["hang"]
