# SPDX-License-Identifier: Apache-2.0
"""Stops requests that nobody waits for any more, until Triton has ended them.

A stop that arrives before its request has reached the engine has no effect, so one is not enough. Each id is stopped
again when a late response of it arrives, and after growing pauses (an answer that is not streamed has no responses
before its last).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MIN_INTERVAL = 0.2  # seconds between two stops of one id
FORGET_AFTER = 60.0  # seconds after which an id that never ended is forgotten


@dataclass(slots=True)
class _Stop:
    engines: Callable[[], Sequence[str]]
    forget_at: float
    sent_at: float
    timer: asyncio.TimerHandle | None = None


class Cancellations:
    """The ids that are being stopped. `send` writes one stop request to an engine in Triton and must not block."""

    def __init__(self, send: Callable[[str, str], None]) -> None:
        self._send = send
        self._stops: dict[str, _Stop] = {}

    def __len__(self) -> int:
        return len(self._stops)

    def add(self, request_id: str, engines: Callable[[], Sequence[str]]) -> None:
        """Stop a request now, and again until `done`.

        engines: returns the engines that it may run on. They can become more, as its model may just be reloaded.
        """
        if request_id in self._stops:
            return
        now = asyncio.get_running_loop().time()
        self._stops[request_id] = stop = _Stop(engines, now + FORGET_AFTER, now)
        self._resend(request_id, stop)
        self._repeat_in(MIN_INTERVAL, request_id, stop)

    def late_response(self, request_id: str) -> None:
        """Note a response of a stopped request, which shows that the engine still works on it."""
        stop = self._stops.get(request_id)
        if stop is not None and asyncio.get_running_loop().time() - stop.sent_at >= MIN_INTERVAL:
            self._resend(request_id, stop)

    def done(self, request_id: str) -> None:
        """Note that a request has ended."""
        stop = self._stops.pop(request_id, None)
        if stop is not None and stop.timer is not None:
            stop.timer.cancel()

    def clear(self) -> None:
        """Forget all ids."""
        for request_id in list(self._stops):
            self.done(request_id)

    def _repeat_in(self, delay: float, request_id: str, stop: _Stop) -> None:
        stop.timer = asyncio.get_running_loop().call_later(delay, self._repeat, delay, request_id, stop)

    def _repeat(self, delay: float, request_id: str, stop: _Stop) -> None:
        now = asyncio.get_running_loop().time()
        if now >= stop.forget_at:
            self.done(request_id)
            return
        if now - stop.sent_at >= MIN_INTERVAL:
            self._resend(request_id, stop)
        self._repeat_in(2 * delay, request_id, stop)

    def _resend(self, request_id: str, stop: _Stop) -> None:
        stop.sent_at = asyncio.get_running_loop().time()
        for engine in stop.engines():
            self._send(request_id, engine)
