# SPDX-License-Identifier: Apache-2.0
"""The benchmark's trace collector, for tests that wait for spans."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scripts.bench import trace_collector
from scripts.bench.trace_collector import Span

__all__ = ["Collector", "Span", "collector"]
PATIENCE_S = 30.0


@dataclass
class Collector(trace_collector.Collector):
    """A running collector."""

    def wait_for(self, condition: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait until the condition holds for the received spans; returns all of them."""
        end = time.monotonic() + PATIENCE_S
        while not condition(self.spans):
            assert time.monotonic() < end, f"only these spans came: {[(one.service, one.name) for one in self.spans]}"
            time.sleep(0.05)
        return list(self.spans)


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    collected = Collector()
    with trace_collector.receiving(collected):
        yield collected
