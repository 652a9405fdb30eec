# SPDX-License-Identifier: Apache-2.0
"""Group the tiles of queued requests into runs of the tower."""

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Part(Generic[Job]):
    """A slice of one job's tiles, from `start` up to and excluding `stop`."""

    job: Job
    start: int
    stop: int

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.stop - self.start


class TileQueue(Generic[Job]):
    """A FIFO queue of jobs, taken out in runs of whole jobs. Only a job larger than a run is cut."""

    def __init__(self) -> None:
        self._parts: deque[Part[Job]] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, job: Job, tiles: int) -> None:
        """Append a job of at least one tile."""
        self._parts.append(Part(job, 0, tiles))

    def take(self, budget: int) -> list[Part[Job]]:
        """Take as many jobs from the head of the queue as fit into `budget` tiles. Empty if nothing is queued."""
        run: list[Part[Job]] = []
        room = budget
        while self._parts and self._parts[0].tiles <= room:
            run.append(self._parts.popleft())
            room -= run[-1].tiles
        if self._parts and not run:
            run.append(self._cut(budget))
        return run

    def drop(self, job: Job) -> None:
        """Remove the remaining tiles of a job."""
        self._parts = deque(part for part in self._parts if part.job is not job)

    def _cut(self, tiles: int) -> Part[Job]:
        """Take the first tiles of the first job; the rest stays at the head of the queue."""
        first = self._parts.popleft()
        middle = first.start + tiles
        self._parts.appendleft(Part(first.job, middle, first.stop))
        return Part(first.job, first.start, middle)
