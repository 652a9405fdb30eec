# SPDX-License-Identifier: Apache-2.0
"""Sample the memory of a stack's processes at intervals, and tell whether it grows."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class MemoryTrend:
    """Samples of the memory of processes, in MiB by role, and the seconds at which they were taken."""

    seconds: list[float] = field(default_factory=list)
    sizes: list[Mapping[str, float]] = field(default_factory=list)

    @contextmanager
    def sampled(self, read: Callable[[], Mapping[str, float]], period_s: float) -> Iterator[None]:
        """Sample on a thread meanwhile. Raises what reading raised, at the end."""
        begun, stopped, failures = time.monotonic(), threading.Event(), list[Exception]()

        def sample() -> None:
            try:
                while not stopped.is_set():
                    self.add(time.monotonic() - begun, read())
                    stopped.wait(period_s)
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
        if failures:
            raise failures[0]

    def add(self, second: float, sizes: Mapping[str, float]) -> None:
        """Add one sample."""
        self.seconds.append(second)
        self.sizes.append(sizes)

    def table(self) -> Iterator[str]:
        """The lines of a table: mean of the first tenth, the second, the middle and the last, most, slope of the last half."""
        yield "| MiB | first tenth | second | middle | last tenth | most | per minute in the last half |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for role in {role: None for sample in self.sizes for role in sample}:
            found = [sample.get(role, 0.0) for sample in self.sizes]
            tenth, half = max(1, len(found) // 10), len(found) // 2
            parts = (found[:tenth], found[tenth : 2 * tenth], found[half : half + tenth], found[-tenth:])
            means = " | ".join(f"{statistics.fmean(part or found):.0f}" for part in parts)
            yield f"| {role} | {means} | {max(found):.0f} | {self.slope(role):+.2f} |"

    def slope(self, role: str) -> float:
        """The growth in MiB per minute, by least squares over the last half of the samples; NaN for fewer than three."""
        half = len(self.sizes) // 2
        times, found = self.seconds[half:], [sample.get(role, 0.0) for sample in self.sizes[half:]]
        return statistics.linear_regression(times, found).slope * 60 if len(times) > 2 else float("nan")
