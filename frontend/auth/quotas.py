# SPDX-License-Identifier: Apache-2.0
"""Limits of one API key: concurrent requests, and a rate of new ones (a token bucket)."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

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


class Use(Protocol):
    """What a key has used. It is read and changed only inside `locked`.

    tokens: of the token bucket, at the time `filled_at`, which is 0 if it was never filled.
    """

    tokens: float
    filled_at: float

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes out."""

    def in_flight(self, limit: int) -> int:
        """Count the requests in progress, as far as it matters whether there are `limit`."""

    def add(self, requests: int) -> None:
        """Change the number of requests in progress."""


class LocalUse:
    """The use of one key in this process alone."""

    def __init__(self) -> None:
        self.tokens = self.filled_at = 0.0
        self._in_flight = 0

    def locked(self) -> AbstractContextManager[None]:
        """Do nothing: there is nobody else."""
        return nullcontext()

    def in_flight(self, limit: int) -> int:
        """Count the requests in progress."""
        return self._in_flight

    def add(self, requests: int) -> None:
        """Change the number of requests in progress."""
        self._in_flight += requests


class Quota:
    """The limits of one key and what it has used of them."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic, use: Use | None = None) -> None:
        self._clock = clock
        self._use = use or LocalUse()
        self.limits = limits

    def change(self, limits: Limits) -> None:
        """Apply new limits; what the key has used still counts."""
        if limits != self.limits:
            with self._use.locked():
                if self.limits.rate is not None:
                    self._fill()
                self.limits = limits
                self._use.tokens = min(self._use.tokens, self._capacity())

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count one request while the context is open. Raises ApiError if it is one too many."""
        with self._use.locked():
            self._check_concurrent()
            self._take()
            self._use.add(1)
        try:
            yield
        finally:
            with self._use.locked():
                self._use.add(-1)

    def _check_concurrent(self) -> None:
        limit = self.limits.concurrent
        if limit is not None and self._use.in_flight(limit) >= limit:
            message = f"This API key may have {limit} requests at once"
            raise ApiError("rate_limited", message, retry_after=1)

    def _take(self) -> None:
        rate = self.limits.rate
        if rate is None:
            return
        self._fill()
        if self._use.tokens < 1:
            wait = math.ceil((1 - self._use.tokens) * 60 / rate)
            raise ApiError("rate_limited", f"This API key may make {rate} requests a minute", retry_after=wait)
        self._use.tokens -= 1

    def _fill(self) -> None:
        """Add the tokens of the time since the bucket was filled; at first fill it whole."""
        use, now = self._use, self._clock()
        # A later time is from before the machine was started again.
        known = 0 < use.filled_at <= now
        added = (now - use.filled_at) * (self.limits.rate or 0) / 60 if known else math.inf
        use.tokens = min(self._capacity(), use.tokens + added)
        use.filled_at = now

    def _capacity(self) -> float:
        return float(self.limits.burst or math.ceil((self.limits.rate or 0) / 6))
