# SPDX-License-Identifier: Apache-2.0
"""Limits of one API key: concurrent requests, and a rate of new ones (a token bucket)."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from frontend.errors import ApiError


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one API key; None is no limit.

    rate: requests per minute. burst: requests that may start at once after a pause, by default the rate of ten seconds.
    concurrent: requests at once.
    """

    rate: int | None = None
    burst: int | None = None
    concurrent: int | None = None


class Quota:
    """The limits of one key and what it has used of them, in this process."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._filled_at = clock()
        self.limits = limits
        self._tokens = self._capacity()

    def change(self, limits: Limits) -> None:
        """Apply new limits; what the key has used still counts."""
        if limits != self.limits:
            self._fill()
            unlimited, self.limits = self.limits.rate is None, limits
            self._tokens = self._capacity() if unlimited else min(self._tokens, self._capacity())

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count one request while the context is open. Raises ApiError if it is one too many."""
        if self.limits.concurrent is not None and self._in_flight >= self.limits.concurrent:
            message = f"This API key may have {self.limits.concurrent} requests at once"
            raise ApiError("rate_limited", message, retry_after=1)
        self._take()
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    def _take(self) -> None:
        rate = self.limits.rate
        if rate is None:
            return
        self._fill()
        if self._tokens < 1:
            wait = math.ceil((1 - self._tokens) * 60 / rate)
            raise ApiError("rate_limited", f"This API key may make {rate} requests a minute", retry_after=wait)
        self._tokens -= 1

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._capacity(), self._tokens + (now - self._filled_at) * (self.limits.rate or 0) / 60)
        self._filled_at = now

    def _capacity(self) -> float:
        return float(self.limits.burst or math.ceil((self.limits.rate or 0) / 6))
