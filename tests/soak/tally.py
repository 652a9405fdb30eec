# SPDX-License-Identifier: Apache-2.0
"""What came of made-up requests, and tables of it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Tally:
    """What came of requests. statuses: answers by status, "hang" or an exception. errors: events of errors amid streams.

    endpoints: answers by endpoint or model, and status. findings: what was wrong, with the request; each once by its words.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    endpoints: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)

    def count(self, endpoint: str, status: str) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        self.endpoints[endpoint, status] += 1

    def add(self, other: "Tally") -> None:
        """Add the counts of another one."""
        self.statuses += other.statuses
        self.errors += other.errors
        self.endpoints += other.endpoints
        self.findings = {**other.findings, **self.findings}

    @property
    def requests(self) -> int:
        """How many requests have been sent."""
        return self.statuses.total()

    def table(self, what: str) -> Iterator[str]:
        """The lines of a table of the answers by endpoint, the most frequent status first. what: heads the first column."""
        statuses = [status for status, _ in self.statuses.most_common()]
        yield f"| {what} | requests | {' | '.join(statuses)} |"
        yield f"|---|---:{'|---:' * len(statuses)}|"
        totals: Counter[str] = Counter()
        for (endpoint, _), number in self.endpoints.items():
            totals[endpoint] += number
        for endpoint, total in totals.most_common():
            counts = (self.endpoints[endpoint, status] or "" for status in statuses)
            yield f"| {endpoint} | {total} | {' | '.join(map(str, counts))} |"
        yield f"| all | {self.requests} | {' | '.join(str(self.statuses[status]) for status in statuses)} |"
