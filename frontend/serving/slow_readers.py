# SPDX-License-Identifier: Apache-2.0
"""Detect clients that read their stream too slowly, and end their streams.

A write waits while the socket's buffers are full. One client must not slow down the engine, so its further output is
buffered in this process. The stream is aborted when that backlog grows too large or one write takes too long.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.types import Scope, Send

from frontend.errors import SlowReader
from frontend.serving.body_parts import BodyParts
from frontend.serving.hang_up import CONNECTION


class StreamWriter:
    """Write the body of one streamed response, and measure how long the current write has been blocked.

    backlog: returns the bytes that wait behind the current write. abort: ends the stream with an error. parts: another
    way to write to the same connection, if the server has one.
    """

    def __init__(
        self, scope: Scope, send: Send, backlog: Callable[[], int], abort: Callable[[Exception], None]
    ) -> None:
        self._send = send
        self.parts: BodyParts | None = scope.get("extensions", {}).get(CONNECTION, {}).get("body")
        self._blocked_since: float | None = None
        self.backlog = backlog
        self.abort = abort

    async def write(self, body: bytes, *, more: bool = True) -> None:
        self._blocked_since = time.monotonic()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
        self._blocked_since = None

    def blocked(self) -> float:
        """Seconds that the current write has taken so far, 0 if there is none."""
        return 0.0 if self._blocked_since is None else time.monotonic() - self._blocked_since


class SlowReaders:
    """Monitors all streams of the process and aborts those whose client does not read.

    stall_timeout: seconds that one write may take. max_backlog: bytes that may wait behind a blocked write.
    """

    def __init__(self, stall_timeout: float, max_backlog: int) -> None:
        self._stall_timeout = stall_timeout
        self._max_backlog = max_backlog
        self._period = min(1.0, stall_timeout / 4)
        self._writers: set[StreamWriter] = set()

    async def run(self) -> None:
        """Check the streams periodically until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            for writer in list(self._writers):
                self._check(writer)

    def _check(self, writer: StreamWriter) -> None:
        blocked = writer.blocked()
        # A stream that is not blocked takes its whole backlog with its next write, so only blocked ones count.
        if blocked > self._stall_timeout or (blocked > self._period and writer.backlog() > self._max_backlog):
            self._writers.discard(writer)
            writer.abort(SlowReader())

    @contextmanager
    def monitor(self, writer: StreamWriter) -> Iterator[None]:
        """Monitor a stream while the context is open."""
        self._writers.add(writer)
        try:
            yield
        finally:
            self._writers.discard(writer)
