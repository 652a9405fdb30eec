# SPDX-License-Identifier: Apache-2.0
"""Clients that read a stream too slowly, and what may be held for them.

A write waits while the socket's buffers are full. The engine cannot be slowed down by one client, so what it says
meanwhile is held here, up to a limit; beyond that, or when the client takes nothing at all for too long, it is cut off.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Send

from frontend.errors import SlowReader


class Outlet:
    """The writes of one stream.

    backlog: bytes that wait behind the write under way. cut: ends the stream.
    """

    def __init__(self, send: Send, backlog: Callable[[], int], cut: Callable[[Exception], None]) -> None:
        self._send = send
        self._blocked_since: float | None = None
        self.backlog = backlog
        self.cut = cut

    async def write(self, body: bytes, *, more: bool = True) -> None:
        self._blocked_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._blocked_since = None

    def blocked(self) -> float:
        """Seconds that the write under way has taken so far."""
        return 0.0 if self._blocked_since is None else time.monotonic() - self._blocked_since


class SlowReaders:
    """Looks after all streams of a process.

    stall_timeout: seconds that one write may take. max_backlog: bytes that may wait behind it.
    """

    def __init__(self, stall_timeout: float, max_backlog: int) -> None:
        self._stall_timeout = stall_timeout
        self._max_backlog = max_backlog
        self._period = min(1.0, stall_timeout / 4)
        self._outlets: set[Outlet] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            for outlet in list(self._outlets):
                self._look(outlet)

    def _look(self, outlet: Outlet) -> None:
        blocked = outlet.blocked()
        # Only who blocks is measured: a healthy stream's backlog is taken at its next turn.
        if blocked > self._stall_timeout or (blocked > self._period and outlet.backlog() > self._max_backlog):
            self._outlets.discard(outlet)
            outlet.cut(SlowReader())

    @contextmanager
    def watching(self, outlet: Outlet) -> Iterator[None]:
        """Look after this stream as well."""
        self._outlets.add(outlet)
        try:
            yield
        finally:
            self._outlets.discard(outlet)
