# SPDX-License-Identifier: Apache-2.0
"""When the requests of a load are sent: streams in a closed loop, a burst, or steady arrivals at a rate."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scripts.bench.questions import Stream

CLOSED, BURST, STEADY = "closed loop", "burst", "steady arrivals"
# A server is warm after fewer requests than a long load of steady arrivals has.
_WARMUP_STREAMS = 16


@dataclass(frozen=True, slots=True)
class Arrivals:
    """One load.

    count: streams of a closed loop, each of which sends its next request when its last has ended, or requests of any
    other load. rate: requests per second, infinite for a burst, None for a closed loop. burstiness: the shape of the
    gamma distribution of the gaps, as `vllm bench serve --burstiness`: 1 is a Poisson process, less is more uneven.
    """

    count: int
    rate: float | None = None
    burstiness: float = 1.0

    @property
    def kind(self) -> str:
        """CLOSED, BURST or STEADY."""
        if self.rate is None:
            return CLOSED
        return BURST if math.isinf(self.rate) else STEADY

    @property
    def about(self) -> dict[str, str | int | float]:
        """What a measurement of it is saved with; JSON has no infinite numbers."""
        about: dict[str, str | int | float] = {"arrivals": self.kind, "streams": self.count}
        if self.kind == STEADY and self.rate is not None:
            about |= {"request_rate": self.rate, "burstiness": self.burstiness}
        return about

    def label(self) -> str:
        """The load in words."""
        if self.rate is None:
            return f"{self.count} streams"
        if math.isinf(self.rate):
            return f"burst of {self.count}"
        return f"{self.count} requests at {self.rate:g}/s"

    def offsets(self, seed: int) -> list[float]:
        """Seconds after the start at which each request is sent; the same for every target with one seed."""
        if self.rate is None or math.isinf(self.rate):
            return [0.0] * self.count
        chooser = random.Random(seed)  # nosec B311 # no secret is drawn
        at, offsets = 0.0, []
        for _ in range(self.count):
            offsets.append(at)
            at += chooser.gammavariate(self.burstiness, 1 / (self.rate * self.burstiness))
        return offsets

    def timed(self, streams: Sequence[Stream], seed: int) -> list[Stream]:
        """Set when each stream begins; the streams of a load at a rate have one request each."""
        if self.kind != STEADY:
            return list(streams)
        return [
            replace(stream, after=after, warmup=stream.warmup if index < _WARMUP_STREAMS else ())
            for index, (stream, after) in enumerate(zip(streams, self.offsets(seed), strict=True))
        ]
