# SPDX-License-Identifier: Apache-2.0
"""The one orchestrator: a request's plan to Triton, its deltas to a stream of events or one body."""

import asyncio
import logging
import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from frontend import __version__
from frontend.deltas import merge
from frontend.errors import ClientGone, describe, error_body
from frontend.generation import Generation
from frontend.metrics import Ticket
from frontend.pace import Pace
from frontend.service import Service
from frontend.sse import DONE, error_event
from frontend.tensors import Delta, EnsembleRequest
from frontend.usage import Usage
from preprocessing.errors import RequestError

logger = logging.getLogger(__name__)

STALL_LIMIT = 5.0  # seconds beyond its timeout that a stream waits for a client that reads nothing


class Plan(ABC):
    """What one kind of completion asks of the ensemble, and how it writes the answer."""

    id: str
    requests: list[EnsembleRequest]
    stream: bool
    include_usage: bool
    usage: Usage

    @abstractmethod
    def adapt(self, delta: Delta) -> Delta:
        """The part of a delta that the client asked for."""

    @abstractmethod
    def opening(self) -> bytes:
        """Events before the first delta's."""

    @abstractmethod
    def chunks(self, choice: int, delta: Delta) -> bytes:
        """The events of one delta."""

    @abstractmethod
    def usage_chunk(self) -> bytes:
        """The event with the token counts."""

    @abstractmethod
    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        """The body of an answer that is not streamed, from one delta for each choice."""


def new_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def head(answer_id: str, kind: str, created: int, model: str) -> dict[str, Any]:
    """The fields that bodies and chunks begin with."""
    fingerprint = f"triton-chat-{__version__}"
    return {"id": answer_id, "object": kind, "created": created, "model": model, "system_fingerprint": fingerprint}


async def answer(
    request: Request, endpoint: str, make_plan: Callable[[Service, dict[str, Any]], Awaitable[Plan]]
) -> Response:
    """Admit, validate, start, wait for the first event, answer. Errors up to there keep their HTTP status."""
    service: Service = request.app.state.service
    async with AsyncExitStack() as stack:
        ticket = stack.enter_context(service.admit(endpoint))
        timeout = _timeout(request, service.settings.request_timeout)
        plan = await _unless_gone(request, make_plan(service, await read_json(request)))
        generation = await service.generate(plan.requests, plan.id)
        stack.callback(service.end, generation)
        await generation.start(timeout)
        watcher = asyncio.create_task(_watch(request, generation))
        stack.callback(watcher.cancel)
        first = await generation.next()
        answering = _Answering(plan, generation, first, ticket)
        if plan.stream:
            pace = stack.enter_context(service.pace)
            return EventStream(answering, timeout + STALL_LIMIT, pace, stack.pop_all())
        return Response(orjson.dumps(await answering.whole()), media_type="application/json")


async def read_json(request: Request) -> dict[str, Any]:
    """The request's body. Raises RequestError where it is no JSON object."""
    try:
        body = orjson.loads(await request.body())
    except ClientDisconnect:
        raise ClientGone from None
    except orjson.JSONDecodeError:
        raise RequestError("The request body is not valid JSON") from None
    if not isinstance(body, dict):
        raise RequestError("The request body must be a JSON object")
    return body


class _Answering:
    """The deltas of one generation on their way to the client."""

    def __init__(self, plan: Plan, generation: Generation, first: dict[int, Delta], ticket: Ticket) -> None:
        self.plan = plan
        self._generation = generation
        self._next: dict[int, Delta] | None = first
        self.ticket = ticket

    @property
    def running(self) -> bool:
        """Whether more deltas than those taken may come."""
        return self._generation.running

    async def deltas(self) -> dict[int, Delta] | None:
        """The next deltas by choice, adapted and counted; None at the end."""
        got, self._next = self._next, None
        if got is None:
            if not self._generation.running:
                return None
            got = await self._generation.next()
        adapted = {choice: self.plan.adapt(delta) for choice, delta in got.items()}
        for choice, delta in adapted.items():
            self.plan.usage.add(choice, delta)
            self.ticket.note(delta)
        return adapted

    async def whole(self) -> dict[str, Any]:
        answers: list[list[Delta]] = [[] for _ in self.plan.requests]
        while (deltas := await self.deltas()) is not None:
            for choice, delta in deltas.items():
                answers[choice].append(delta)
        return self.plan.whole([merge(parts) for parts in answers])


class EventStream(Response):
    """A streamed answer. It owns `resources` and closes them whatever happens to the connection.

    Starlette's own streaming response is not used: it puts a task group and an iterator around every chunk.
    """

    media_type = "text/event-stream"

    def __init__(self, answering: _Answering, time_limit: float, pace: Pace, resources: AsyncExitStack) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answering = answering
        self._time_limit = time_limit
        self._pace = pace
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                # A client that reads nothing blocks `send`, where the generation's own timeout cannot reach.
                async with asyncio.timeout(self._time_limit):
                    await self._events(send)
            except (ClientGone, TimeoutError) as error:
                # Nobody reads. The answer is left without its end, on which the server closes the connection.
                self._answering.ticket.failed(error)
            except Exception as error:
                self._answering.ticket.failed(error)
                if describe(error)[0].status == 500:
                    logger.exception("request %s failed", self._answering.plan.id)
                await _send(send, error_event(error_body(error)) + DONE, more=False)

    async def _events(self, send: Send) -> None:
        plan, waiting = self._answering.plan, self._answering.plan.opening()
        while (deltas := await self._answering.deltas()) is not None:
            waiting += b"".join([plan.chunks(choice, delta) for choice, delta in deltas.items()])
            if waiting and self._answering.running:
                await _send(send, waiting)
                waiting = b""
                await self._pace.pause()
        await _send(send, waiting + (plan.usage_chunk() if plan.include_usage else b"") + DONE, more=False)


async def _send(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def _watch(request: Request, generation: Generation) -> None:
    """Fail the generation when the client closes the connection."""
    await _disconnected(request)
    generation.fail(ClientGone())


async def _unless_gone(request: Request, planning: Awaitable[Plan]) -> Plan:
    """The plan, whose images may take long to fetch. Raises ClientGone, and fetches no more, when the client leaves."""
    planner, gone = asyncio.ensure_future(planning), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((planner, gone), return_when=asyncio.FIRST_COMPLETED)
        if not planner.done():
            raise ClientGone
        return planner.result()
    finally:
        gone.cancel()
        planner.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _timeout(request: Request, longest: float) -> float:
    """Seconds this request may take; X-Request-Timeout may shorten them."""
    header = request.headers.get("x-request-timeout")
    if header is None:
        return longest
    try:
        asked = float(header)
    except ValueError:
        asked = math.nan
    if not 0 < asked < math.inf:
        raise RequestError("X-Request-Timeout must be a number of seconds above 0", param="X-Request-Timeout")
    return min(asked, longest)
