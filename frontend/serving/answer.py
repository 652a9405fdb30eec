# SPDX-License-Identifier: Apache-2.0
"""Answer a completion request: admit it, plan it, generate in Triton, and write the deltas as events or as one body.

`answer` is the orchestrator of all endpoints that generate text. What differs between them is in their Plan.
"""

import logging
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import replace
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from common.errors import RequestError
from frontend import __version__
from frontend.errors import ClientGone, SlowReader, describe, error_json, translated
from frontend.serving.admission import AdmittedRequest
from frontend.serving.body_parts import BodyParts
from frontend.serving.generation import Generation
from frontend.serving.response_store import PATIENCE
from frontend.serving.served_model import RequestedModel
from frontend.serving.service import Service
from frontend.serving.slow_readers import StreamWriter
from frontend.serving.sse import DONE, error_event
from frontend.serving.write_throttle import WriteThrottle
from frontend.triton.deltas import merge
from frontend.triton.response_queue import Listener
from frontend.triton.tensors import Delta, EnsembleRequest
from frontend.triton.usage import Usage

logger = logging.getLogger(__name__)

_FORGOTTEN = EnsembleRequest()


class Plan(ABC):
    """The requests of one completion to the ensemble, and how its deltas are written for the client.

    requests: one for each choice. image_urls: the images that each request carries, which `ServedModel.generate`
    fetches.
    """

    id: str
    requests: list[EnsembleRequest]
    image_urls: Sequence[str] = ()
    stream: bool
    include_usage: bool
    usage: Usage
    # What ends a stream.
    end = DONE
    # Whether the finished answer is stored.
    stores = False
    # The times of the answer so far, if the client asked for them.
    timings: Callable[[], dict[str, float | None]] | None = None

    def forget_prompts(self) -> int:
        """Let go of what Triton now has, and of the body. Returns the bytes that the answer still needs of it."""
        self.requests = [_FORGOTTEN] * len(self.requests)
        self.image_urls = ()
        return 0

    @abstractmethod
    def adapt(self, delta: Delta) -> Delta:
        """Return a delta with only the parts that the client asked for."""

    @abstractmethod
    def first_chunks(self) -> bytes:
        """Write the events before those of the first delta."""

    @abstractmethod
    def chunks(self, choice: int, delta: Delta) -> bytes:
        """Write the events of one delta."""

    def text_chunk(self, choice: int, text: str) -> bytes:
        """Write the events of a delta that is only text."""
        return self.chunks(choice, self.adapt(Delta(text)))

    @abstractmethod
    def usage_chunk(self) -> bytes:
        """Write the event with the token counts."""

    def metrics(self) -> dict[str, Any]:
        """Return the field `metrics` of the answer, in a dict that is empty without it: as in vLLM, with one choice."""
        return {"metrics": self.timings()} if self.timings is not None and len(self.requests) == 1 else {}

    def failure(self, error: BaseException) -> bytes:
        """Write the events that end a stream with an error."""
        return error_event(error_json(error))

    async def keep(self, patience: float) -> dict[str, Any]:
        """Store a finished answer within `patience` seconds. Returns the fields of its body that this has changed."""
        return {}

    def own_error(self, error: RequestError) -> RequestError:
        """Return an error from behind the plan with the names that the request's fields have at this endpoint."""
        return error

    def own_errors(self) -> AbstractContextManager[None]:
        """Raise `own_error` of an error in the block."""
        return translated(self.own_error)

    @abstractmethod
    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        """Return the body of an answer that is not streamed. answers: one merged delta for each choice."""


def new_id(prefix: str) -> str:
    """Return a unique id for an answer or one of its parts."""
    return f"{prefix}-{uuid.uuid4().hex}"


def head(answer_id: str, kind: str, created: int, model: str) -> dict[str, Any]:
    """Return the fields that bodies and chunks begin with. created: Unix time in seconds."""
    fingerprint = f"triton-chat-{__version__}"
    return {"id": answer_id, "object": kind, "created": created, "model": model, "system_fingerprint": fingerprint}


async def answer(
    request: Request, endpoint: str, make_plan: Callable[[RequestedModel, dict[str, Any]], Awaitable[Plan]]
) -> Response:
    """Answer one request with a stream of events or one body.

    make_plan: validates the body. The response starts with the first delta: an error before that keeps its HTTP status.
    """
    service: Service = request.app.state.service
    async with AsyncExitStack() as stack:
        admitted = await stack.enter_async_context(service.admission.admit(request, endpoint))
        async with admitted.cancel_scope.cancellable():
            plan = await make_plan(admitted.model, admitted.body)
            if _asks_for_metrics(request):
                plan.timings = admitted.metrics.timings
                # The first token of an answer is seen only in a stream.
                plan.requests = [replace(one, stream=True) for one in plan.requests]
            with plan.own_errors():
                generation = await admitted.model.served.generate(
                    plan.requests, plan.id, admitted.memory, plan.image_urls
                )
            stack.callback(_close, generation, plan.usage)
            await generation.start()
        admitted.cancel_scope.attach(generation)
        admitted.metrics.usage = plan.usage
        with plan.own_errors():
            first = await generation.next()
        admitted.forget_body(plan.forget_prompts())
        started = _Answer(plan, generation, first, admitted)
        if plan.stream:
            stack.enter_context(service.write_throttle)
            return EventStream(started, service, stack.pop_all())
        body = orjson.dumps(await started.whole())
        headers = None if plan.timings is None else {"Server-Timing": _server_timing(plan.timings())}
        return Response(body, headers=headers, media_type="application/json")


def _close(generation: Generation, usage: Usage) -> None:
    """Close a generation, and count what it has made if its answer was cut off."""
    generation.close()
    usage.add_unfinished(generation.generated)


def _asks_for_metrics(request: Request) -> bool:
    """Whether the client wants to see the times of its request. Raises RequestError if that is unclear."""
    asked = request.headers.get("x-request-metrics", "false").lower()
    if asked not in ("true", "false"):
        raise RequestError("X-Request-Metrics must be true or false", param="X-Request-Metrics")
    return asked == "true"


def _server_timing(timings: Mapping[str, float | None]) -> str:
    """Write times as browsers show them: the value of the header Server-Timing."""
    shown = {"queue": "queue_time_ms", "ttft": "time_to_first_token_ms", "total": "total_time_ms"}
    return ", ".join(f"{name};dur={timings[key]}" for name, key in shown.items() if timings[key] is not None)


class _Answer:
    """The deltas of one generation, adapted to the request and counted."""

    def __init__(self, plan: Plan, generation: Generation, first: dict[int, Delta], admitted: AdmittedRequest) -> None:
        self.plan = plan
        self.generation = generation
        self.cancel_scope = admitted.cancel_scope
        self.metrics = admitted.metrics
        self._slot = admitted.slot
        self._next: dict[int, Delta] | None = first

    @property
    def running(self) -> bool:
        """Whether more deltas may follow."""
        return self.generation.running

    async def deltas(self, listener: Listener | None = None) -> dict[int, Delta] | None:
        """Wait for the next deltas by choice; None at the end. listener: see `Generation.next`."""
        got, self._next = self._next, None
        if got is None:
            if not self.generation.running:
                return None
            with self.plan.own_errors():
                got = await self.generation.next(listener)
        return self._adapt(got)

    def take_waiting(self) -> dict[int, Delta]:
        """Return the deltas by choice that wait for the listener."""
        return self._adapt(self.generation.take_waiting())

    def _adapt(self, got: dict[int, Delta]) -> dict[int, Delta]:
        adapted = {choice: self.plan.adapt(delta) for choice, delta in got.items()}
        for choice, delta in adapted.items():
            self.plan.usage.add(choice, delta)
            self.metrics.observe(choice, delta)
        return adapted

    def text_chunk(self, choice: int, text: str) -> bytes:
        """Write the events of a delta that is only text."""
        part = self.plan.text_chunk(choice, text)
        if part:
            self.metrics.observe_content(choice)
        return part

    def chunks(self, deltas: dict[int, Delta]) -> bytes:
        """Write the events of some deltas."""
        return b"".join([self.plan.chunks(choice, delta) for choice, delta in deltas.items()])

    async def whole(self) -> dict[str, Any]:
        """Wait for all deltas and return the body of the answer."""
        answers: list[list[Delta]] = [[] for _ in self.plan.requests]
        while (deltas := await self.deltas()) is not None:
            for choice, delta in deltas.items():
                answers[choice].append(delta)
        body = self.plan.whole([merge(parts) for parts in answers])
        return body | await self.keep()

    async def keep(self) -> dict[str, Any]:
        """Store the finished answer if its plan says so. Returns the fields of its body that this has changed."""
        if not self.plan.stores:
            return {}
        # The engine has done its part: what the store takes is not the next request's.
        self._slot.close()
        return await self.plan.keep(min(PATIENCE, self.cancel_scope.remaining))


class EventStream(Response):
    """A streamed answer. It owns `resources` and closes them however the connection ends.

    Starlette's StreamingResponse is not used because it adds a task group and an iterator around every chunk.
    """

    media_type = "text/event-stream"

    def __init__(self, answer: _Answer, service: Service, resources: AsyncExitStack) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._answer = answer
        self._write_throttle = service.write_throttle
        self._slow_readers = service.slow_readers
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer
        writer = StreamWriter(scope, send, answer.generation.backlog, answer.cancel_scope.abort)
        async with self._resources:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            try:
                with self._slow_readers.monitor(writer):
                    async with answer.cancel_scope.cancellable():
                        await self._write_answer(writer)
            except (ClientGone, SlowReader) as error:
                # No one reads the stream. It is left without its end, so that the server closes the connection.
                answer.metrics.fail(error)

    async def _write_answer(self, writer: StreamWriter) -> None:
        try:
            await self._write_events(writer)
        except ClientGone:
            raise
        except Exception as error:
            self._answer.metrics.fail(error)
            if describe(error)[0].status == 500:
                logger.exception("request %s failed", self._answer.plan.id)
            await writer.write(self._answer.plan.failure(error) + self._answer.plan.end, more=False)

    async def _write_events(self, writer: StreamWriter) -> None:
        answer, plan = self._answer, self._answer.plan
        deltas = await answer.deltas()  # received before the response began, with the prompt's count
        waiting = plan.first_chunks()
        pushing = None if writer.parts is None else _Pushing(answer, writer.parts, self._write_throttle)
        while deltas is not None:
            waiting += answer.chunks(deltas)
            if waiting and answer.running:
                await writer.write(waiting)
                waiting = b""
                if pushing is not None:
                    pushing.written()
            deltas = await answer.deltas(pushing)
        if plan.stores:
            # The text does not wait for the store.
            if waiting:
                await writer.write(waiting)
                waiting = b""
            await answer.keep()
        await writer.write(waiting + (plan.usage_chunk() if plan.include_usage else b"") + plan.end, more=False)


class _Pushing:
    """Writes what comes in the middle of an answer as soon as it is received, without waking the answer's task.

    To wake a task through all its layers, and to send through all of them, costs more than all else about a token. The
    task writes the beginning and the end, and whatever cannot be written at once. It is the Listener of the generation.
    """

    def __init__(self, answer: _Answer, body: BodyParts, throttle: WriteThrottle) -> None:
        self._answer = answer
        self._body = body
        self._throttle = throttle
        self._next_write = 0.0
        self._held = False

    def written(self) -> None:
        """Note that the stream has just been written to."""
        pause = self._throttle.pause
        self._next_write = time.perf_counter() + pause if pause else 0.0

    def take_text(self, choice: int, text: str) -> bool:
        """Write a text; returns False if that is not possible now."""
        if self._held or self._must_pause():
            return False
        return self._push(self._answer.text_chunk, choice, text)

    def take(self, delta: Delta) -> bool:
        """Write what waits, now or after a pause; returns False if the task must."""
        if delta.finish_reason is not None or delta.error is not None or delta.final:
            return False
        if self._held:
            return True
        if self._must_pause():
            self._held = True
            self._throttle.call_at(self._next_write, self._write_held)
            return True
        return self._push(self._waiting_chunks)

    def _write_held(self) -> None:
        self._held = False
        generation = self._answer.generation
        if generation.listened and not self._push(self._waiting_chunks):
            generation.wake()

    def _must_pause(self) -> bool:
        return bool(self._next_write) and time.perf_counter() < self._next_write

    def _waiting_chunks(self) -> bytes:
        return self._answer.chunks(self._answer.take_waiting())

    def _push(self, make: Callable[..., bytes], *about: Any) -> bool:
        """Write what `make` returns; returns False, and does not call it, if nothing can be written now."""
        if not self._body.ready:
            return False
        try:
            part = make(*about)
            if part:
                self._body.write(part)
                self.written()
        except Exception as error:
            self._answer.generation.fail(error)
        return True
