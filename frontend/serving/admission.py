# SPDX-License-Identifier: Apache-2.0
"""Admission: what every request to a model passes before any work is done for it.

`Admission.admit` takes these steps, and each can refuse the request:

1. Count it. A process holds max_in_flight + max_queued requests and refuses the next at once (503), before reading its
   body. While the server shuts down it refuses all.
2. Start its deadline, `request_timeout` or the shorter X-Request-Timeout (504 once it has passed).
3. Read its body, which must be a JSON object (400) and arrive within body_timeout (408). A large one waits for room in
   the process's memory before it is read, at most as long (503).
4. Watch its connection: from here a disconnect cancels the request (499).
5. Find its model (404, or 503 if it is loading). Limits and deadlines are the model's own. Each of several models
   counts its own requests from here, so that one that has too many refuses only its own; before, as many bodies may be
   read as all models together hold.
6. Wait for one of the model's max_in_flight slots, first come, first served, at most queue_timeout (503).

So no request waits longer than queue_timeout for an engine that is given no more than it can take.
"""

import asyncio
import gc
import json
import math
import sys
import time
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from common.errors import RequestError
from common.served_model import CHAT
from frontend.errors import ApiError, ClientGone, ShuttingDown
from frontend.serving.cancel_scope import CancelScope
from frontend.serving.catalog import Catalog
from frontend.serving.hang_up import until_hang_up
from frontend.serving.request_memory import FREE, HeldMemory, RequestMemory
from frontend.serving.served_model import RequestedModel, ServedModel
from frontend.serving.turns import Turns
from frontend.settings import Settings
from frontend.telemetry.metrics import RequestMetrics
from frontend.telemetry.request_record import current

MAX_EXAMINED = 2**20  # bytes of a body that is not JSON in which the reason is looked for; it blocks the process


@dataclass(slots=True)
class AdmittedRequest:
    """A request that holds a slot of its model, until `slot` is closed. body: the JSON object that it sent.

    memory: what it holds of the process's. An answer may run for long: `forget_body` once it is not needed any more.
    """

    model: RequestedModel
    body: dict[str, Any]
    metrics: RequestMetrics
    cancel_scope: CancelScope
    slot: ExitStack
    memory: HeldMemory

    def forget_body(self, kept: int) -> None:
        """Let go of the body and its room, but for `kept` bytes that the answer needs of it."""
        self.body = {}
        self.memory.release_sent(kept)


class Admission:
    """Admits the requests of one process and can cancel all of them."""

    def __init__(self, settings: Settings, catalog: Catalog) -> None:
        self._settings = settings
        self._catalog = catalog
        self._cancel_scopes: set[CancelScope] = set()
        self._reading = 0
        self._memory = RequestMemory(settings.max_request_memory, settings.body_timeout)
        self._turns = Turns()
        self.stopping = False  # readiness is false; new requests are still admitted until `draining`
        self.draining = False  # all new requests are refused

    @asynccontextmanager
    async def admit(self, request: Request, endpoint: str, kind: str = CHAT) -> AsyncIterator[AdmittedRequest]:
        """Admit a request, read its JSON body, wait for a slot of its model, and hold it until the context is left.

        kind: of the models that the endpoint is for. Raises ApiError if the request is refused, RequestError if it
        cannot be read, ClientGone if the client left.
        """
        alone = self._catalog.alone
        if alone is not None:
            current().label = alone.label
        with ExitStack() as held:
            reading = held.enter_context(ExitStack())
            reading.enter_context(self._count(alone))
            metrics = held.enter_context(RequestMetrics(endpoint))
            settings = self._settings if alone is None else alone.settings
            cancel_scope = held.enter_context(self._cancel_scope(_timeout(request, settings.request_timeout)))
            async with cancel_scope.cancellable():
                memory = held.enter_context(HeldMemory(self._memory))
                body = await self._read_json(request, memory)
                cancel_scope.cancel_on_disconnect(request)
                model = await self._catalog.find(body.get("model"), kind)
                served = model.served
                if served is not alone:
                    held.enter_context(served.slots.enter())
                    reading.close()
                    cancel_scope.set_timeout(_timeout(request, served.settings.request_timeout))
                metrics.name_model(model.label)
                began = time.perf_counter()
                try:
                    await served.slots.acquire()
                finally:
                    metrics.leave_queue(time.perf_counter() - began)
                slot = held.enter_context(ExitStack())
                slot.callback(served.slots.release)
                await self._turns.take()
            admitted = AdmittedRequest(model, body, metrics, cancel_scope, slot, memory)
            del body
            yield admitted

    async def read_json(self, request: Request) -> dict[str, Any]:
        """Read the JSON body of a request that is not admitted. Raises RequestError, ApiError or ClientGone."""
        with HeldMemory(self._memory) as memory:
            return await self._read_json(request, memory)

    async def _read_json(self, request: Request, memory: HeldMemory) -> dict[str, Any]:
        return await read_json(request, self._settings.body_timeout, memory, self._settings.max_body_bytes)

    def drain(self) -> None:
        """Refuse all new requests: the server is shutting down."""
        self.stopping = self.draining = True

    def cancel_all(self) -> None:
        """Cancel the requests in progress: the server is shutting down."""
        for cancel_scope in list(self._cancel_scopes):
            cancel_scope.cancel(ShuttingDown())

    @contextmanager
    def _count(self, alone: ServedModel | None) -> Iterator[None]:
        """Count a request: as one of the only model, or as one whose model is not known yet. Raises ApiError."""
        if self.draining:
            raise ApiError("overloaded", "The server is shutting down")
        if alone is not None:
            with alone.slots.enter():
                yield
            return
        limit = sum(model.slots.max_admitted for model in self._catalog.models.values())
        if self._reading >= max(limit, self._settings.max_in_flight):
            raise ApiError("overloaded", "Too many requests at once; try again later")
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

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


async def read_json(request: Request, timeout: float, memory: HeldMemory, longest: int) -> dict[str, Any]:
    """Read the request's body within `timeout` seconds. Raises RequestError if it is not a JSON object.

    memory: what a large body needs is reserved in it. longest: bytes of a body whose length is not known beforehand.
    """
    try:
        data = await _read(request, timeout, memory, longest)
        if len(data) > FREE:
            async with until_hang_up(request.scope):
                await memory.reserve_values(data)
    except ClientDisconnect:
        raise ClientGone from None
    except TimeoutError:
        raise ApiError("slow_request", f"The request's body did not come in within {timeout:g} s") from None
    if data.startswith(BOM_UTF8):
        del data[: len(BOM_UTF8)]
    # The garbage collector would look at all lists again and again: millions of them would take four times as long.
    gc.disable()
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _not_json(data) from None
    finally:
        gc.enable()
    if not isinstance(body, dict):
        raise RequestError("The request body must be a JSON object")
    return body


async def _read(request: Request, timeout: float, memory: HeldMemory, longest: int) -> bytearray:
    """Read the request's body. Raises TimeoutError, ClientDisconnect, or ApiError if there is no room for it."""
    length = request.headers.get("content-length")
    expected = longest if length is None else int(length)
    data, reserved = bytearray(), False
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout) as limit:
        async for part in request.stream():
            data += part
            # A chunked body is small until the opposite is seen.
            if not reserved and (len(data) if length is None else expected) > FREE:
                limit.reschedule(None)
                async with until_hang_up(request.scope):
                    await memory.reserve_body(expected)
                limit.reschedule(loop.time() + timeout)
                reserved = True
    if reserved:
        memory.fit_body(len(data))
    return data


def _not_json(data: bytearray) -> RequestError:
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
