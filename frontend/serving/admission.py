# SPDX-License-Identifier: Apache-2.0
"""Admission: what every request to a model passes before any work is done for it.

`Admission.admit` takes these steps, and each can refuse the request:

1. Count it. A process holds max_in_flight + max_queued requests and refuses the next at once (503), before reading its
   body. While the server shuts down it refuses all.
2. Start its deadline, `request_timeout` or the shorter X-Request-Timeout (504 once it has passed).
3. Read its body, which must be a JSON object (400) and arrive within body_timeout (408).
4. Watch its connection: from here a disconnect cancels the request (499).
5. Wait for one of max_in_flight slots, first come, first served, at most queue_timeout (503).

So no request waits longer than queue_timeout for an engine that is given no more than it can take.
"""

import asyncio
import json
import math
import sys
from codecs import BOM_UTF8
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from common.errors import RequestError
from frontend.errors import ApiError, ClientGone, ShuttingDown
from frontend.serving.cancel_scope import CancelScope
from frontend.settings import Settings
from frontend.telemetry.metrics import QUEUED, RequestMetrics

MAX_EXAMINED = 2**20  # bytes of a body that is not JSON in which the reason is looked for; it blocks the process


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request that holds a slot. body: the JSON object that it sent."""

    body: dict[str, Any]
    metrics: RequestMetrics
    cancel_scope: CancelScope


class Admission:
    """Admits the requests of one process and can cancel all of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cancel_scopes: set[CancelScope] = set()
        self.slots = Slots(settings.max_in_flight, settings.max_queued, settings.queue_timeout)

    @asynccontextmanager
    async def admit(self, request: Request, endpoint: str) -> AsyncIterator[AdmittedRequest]:
        """Admit a request, read its JSON body, wait for a slot, and hold the slot until the context is left.

        Raises ApiError if the request is refused, RequestError if it cannot be read, ClientGone if the client left.
        """
        with (
            self.slots.enter(),
            RequestMetrics(endpoint) as metrics,
            self._cancel_scope(_timeout(request, self._settings.request_timeout)) as cancel_scope,
        ):
            async with cancel_scope.cancellable():
                body = await _read_json(request, self._settings.body_timeout)
                cancel_scope.cancel_on_disconnect(request)
                await self.slots.acquire()
            try:
                yield AdmittedRequest(body, metrics, cancel_scope)
            finally:
                self.slots.release()

    @property
    def draining(self) -> bool:
        """Whether all new requests are refused."""
        return self.slots.closed

    def drain(self) -> None:
        """Refuse all new requests: the server is shutting down."""
        self.slots.closed = True

    def cancel_all(self) -> None:
        """Cancel the requests in progress: the server is shutting down."""
        for cancel_scope in list(self._cancel_scopes):
            cancel_scope.cancel(ShuttingDown())

    @contextmanager
    def _cancel_scope(self, timeout: float) -> Iterator[CancelScope]:
        cancel_scope = CancelScope(timeout)
        self._cancel_scopes.add(cancel_scope)
        try:
            yield cancel_scope
        finally:
            self._cancel_scopes.discard(cancel_scope)
            cancel_scope.close()


def _timeout(request: Request, longest: float) -> float:
    """The seconds that this request may take: `longest`, or less if X-Request-Timeout says so."""
    header = request.headers.get("x-request-timeout")
    if header is None:
        return longest
    try:
        asked = float(header.replace("_", "x"))  # Python reads 1_0 as 10.
    except ValueError:
        asked = math.nan
    if not 0 < asked < math.inf:
        raise RequestError("X-Request-Timeout must be a number of seconds above 0", param="X-Request-Timeout")
    return min(asked, longest)


async def _read_json(request: Request, timeout: float) -> dict[str, Any]:
    """Read the request's body within `timeout` seconds. Raises RequestError if it is not a JSON object."""
    try:
        async with asyncio.timeout(timeout):
            data = await request.body()
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise ApiError("slow_request", f"The request's body did not come in within {timeout:g} s") from None
    try:
        body = orjson.loads(data.removeprefix(BOM_UTF8))
    except orjson.JSONDecodeError:
        raise _not_json(data) from None
    if not isinstance(body, dict):
        raise RequestError("The request body must be a JSON object")
    return body


def _not_json(data: bytes) -> RequestError:
    """Return the error of a body that is not JSON. It names the field if a number is all that is wrong.

    Python's json writes NaN and Infinity as these words, and integers of any length.
    """
    message = "The request body is not valid JSON"
    if len(data) <= MAX_EXAMINED:
        with suppress(ValueError, RecursionError):
            body = json.loads(data)
            for name, value in body.items() if isinstance(body, dict) else ():
                if name.isidentifier() and name.isascii() and len(name) <= 40 and not _finite(value):
                    return RequestError(f"{message}: {name} has NaN, Infinity or too large a number", param=name)
    return RequestError(message)


def _finite(value: Any) -> bool:
    """Return whether every number in parsed JSON fits a float. Raises RecursionError if it is nested too deeply."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, int | float) or -sys.float_info.max <= value <= sys.float_info.max


class Slots:
    """Concurrency slots with a bounded queue.

    At most max_in_flight + max_queued requests are inside `enter`; at most max_in_flight of them hold a slot.
    closed: `enter` refuses all.
    """

    def __init__(self, max_in_flight: int, max_queued: int, queue_timeout: float) -> None:
        self._max_in_flight = max_in_flight
        self._max_admitted = max_in_flight + max_queued
        self._queue_timeout = queue_timeout
        self._queue: deque[asyncio.Future[None]] = deque()
        self.admitted = 0
        self.in_flight = 0
        self.closed = False

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return len(self._queue)

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count a request while the context is open. Raises ApiError if that would be one too many."""
        if self.closed:
            raise ApiError("overloaded", "The server is shutting down")
        if self.admitted >= self._max_admitted:
            raise ApiError("overloaded", "Too many requests at once; try again later")
        self.admitted += 1
        try:
            yield
        finally:
            self.admitted -= 1

    async def acquire(self) -> None:
        """Wait for a slot, which `release` gives back. Raises ApiError if none is free within queue_timeout."""
        if self.in_flight < self._max_in_flight and not self._queue:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        QUEUED.inc()
        try:
            async with asyncio.timeout(self._queue_timeout):
                await turn
        except BaseException as error:
            self._leave_queue(turn)
            if isinstance(error, TimeoutError):
                raise ApiError("overloaded", "The server is busy; try again later") from None
            raise
        finally:
            QUEUED.dec()

    def release(self) -> None:
        """Give a slot to the next request in the queue, if there is one."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _leave_queue(self, turn: "asyncio.Future[None]") -> None:
        if turn in self._queue:
            self._queue.remove(turn)
        elif not turn.cancelled():
            # The slot was handed over in the same moment.
            self.release()
