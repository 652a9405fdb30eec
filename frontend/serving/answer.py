# SPDX-License-Identifier: Apache-2.0
"""The one orchestrator: a request's plan to Triton, its deltas to a stream of events or one body."""

import logging
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from frontend import __version__
from frontend.errors import ClientGone, SlowReader, describe, error_json
from frontend.serving.admission import AdmittedRequest
from frontend.serving.generation import Generation
from frontend.serving.service import Service
from frontend.serving.slow_readers import StreamWriter
from frontend.serving.sse import DONE, error_event
from frontend.triton.deltas import merge
from frontend.triton.tensors import Delta, EnsembleRequest
from frontend.triton.usage import Usage

logger = logging.getLogger(__name__)


class Plan(ABC):
    """What one kind of completion asks of the ensemble, and how it writes the answer.

    image_urls: the images of every request; `Service.generate` fetches them.
    """

    id: str
    requests: list[EnsembleRequest]
    image_urls: Sequence[str] = ()
    stream: bool
    include_usage: bool
    usage: Usage

    @abstractmethod
    def adapt(self, delta: Delta) -> Delta:
        """The part of a delta that the client asked for."""

    @abstractmethod
    def first_chunks(self) -> bytes:
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
        admitted = await stack.enter_async_context(service.admission.admit(request, endpoint))
        async with admitted.cancel_scope.cancellable():
            plan = await make_plan(service, admitted.body)
            generation = await service.generate(plan.requests, plan.id, plan.image_urls)
            stack.callback(generation.close)
            await generation.start()
        admitted.cancel_scope.attach(generation)
        admitted.metrics.usage = plan.usage
        answering = _Answering(plan, generation, await generation.next(), admitted)
        if plan.stream:
            stack.enter_context(service.write_throttle)
            return EventStream(answering, service, stack.pop_all())
        return Response(orjson.dumps(await answering.whole()), media_type="application/json")


class _Answering:
    """The deltas of one generation on their way to the client."""

    def __init__(self, plan: Plan, generation: Generation, first: dict[int, Delta], admitted: AdmittedRequest) -> None:
        self.plan = plan
        self.generation = generation
        self.cancel_scope = admitted.cancel_scope
        self.metrics = admitted.metrics
        self._next: dict[int, Delta] | None = first

    @property
    def running(self) -> bool:
        """Whether more deltas than those taken may come."""
        return self.generation.running

    async def deltas(self) -> dict[int, Delta] | None:
        """The next deltas by choice, adapted and counted; None at the end."""
        got, self._next = self._next, None
        if got is None:
            if not self.generation.running:
                return None
            got = await self.generation.next()
        adapted = {choice: self.plan.adapt(delta) for choice, delta in got.items()}
        for choice, delta in adapted.items():
            self.plan.usage.add(choice, delta)
            self.metrics.observe(choice, delta)
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

    def __init__(self, answering: _Answering, service: Service, resources: AsyncExitStack) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answering = answering
        self._write_throttle = service.write_throttle
        self._slow_readers = service.slow_readers
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = self._answering
        writer = StreamWriter(send, answering.generation.backlog, answering.cancel_scope.abort)
        async with self._resources:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                with self._slow_readers.monitor(writer):
                    async with answering.cancel_scope.cancellable():
                        await self._write_answer(writer)
            except (ClientGone, SlowReader) as error:
                # Nobody reads. The answer is left without its end, on which the server closes the connection.
                answering.metrics.fail(error)

    async def _write_answer(self, writer: StreamWriter) -> None:
        try:
            await self._write_events(writer)
        except ClientGone:
            raise
        except Exception as error:
            self._answering.metrics.fail(error)
            if describe(error)[0].status == 500:
                logger.exception("request %s failed", self._answering.plan.id)
            await writer.write(error_event(error_json(error)) + DONE, more=False)

    async def _write_events(self, writer: StreamWriter) -> None:
        plan, waiting = self._answering.plan, self._answering.plan.first_chunks()
        while (deltas := await self._answering.deltas()) is not None:
            waiting += b"".join([plan.chunks(choice, delta) for choice, delta in deltas.items()])
            if waiting and self._answering.running:
                await writer.write(waiting)
                waiting = b""
                await self._write_throttle.wait()
        await writer.write(waiting + (plan.usage_chunk() if plan.include_usage else b"") + DONE, more=False)
