# SPDX-License-Identifier: Apache-2.0
"""Triton model `tensorrt_llm` on a Python engine: requests in, one generation task each, streamed responses out."""

import asyncio
import itertools
import json
import locale
import math
import sys
import threading
from collections import defaultdict
from contextlib import aclosing
from functools import partial
from typing import Any

# The stub leaves the C locale, in which open() reads ASCII; vLLM and transformers read UTF-8 files at import.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

import torch  # noqa: E402

from common.errors import RequestError  # noqa: E402
from common.finish_reason import FinishReason  # noqa: E402
from common.logs import about, model_logger  # noqa: E402
from engines.engine import STATISTICS, Generation, Tokens  # noqa: E402
from engines.options import read_options  # noqa: E402
from engines.outbox import Outbox, Outgoing  # noqa: E402
from engines.registry import build_engine  # noqa: E402
from engines.reply import Reply  # noqa: E402
from engines.tensors import Inputs, Outputs, read_generations  # noqa: E402
from python_backend import watchdog as guardian  # noqa: E402
from python_backend.config import ModelParameters  # noqa: E402
from python_backend.metrics import PERIOD_S, Published  # noqa: E402

# Asking Triton whether a request was cancelled costs about 0.13 ms, as much as sending a response: not once per token.
CANCEL_PERIOD_S = 1.0
STREAM_INTERVAL_PERIOD_S = 0.1
# Seconds that a thread which is to send waits for the interpreter while the loop computes; Python's own 5 ms would let
# 200 responses a second through.
SWITCH_INTERVAL_S = 0.0005

log = model_logger("tensorrt_llm", verbose=True)


class TritonPythonModel:
    """Triton's interface. One event loop on a thread of its own runs the engine and every generation."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the engine; raises with a message for people where it cannot."""
        # Before the engine, whose processes must not outlive a server that is killed while it loads.
        guardian.start()
        parameters = ModelParameters.from_config(args["model_config"])
        self._max_requests = parameters.integer("max_requests") or math.inf
        # An engine computes elsewhere. What is done to tensors here is less work than waking threads for it.
        torch.set_num_threads(1)
        self._engine = build_engine(read_options(parameters))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True)
        self._thread.start()
        self._tasks: dict[str, dict[asyncio.Task[None], Outgoing]] = defaultdict(dict)
        self._stream_ids = itertools.count(1)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._outbox = Outbox()
        self._in_loop(self._engine.start())
        self._published = Published("tensorrt_llm", "triton_chat_engine", STATISTICS)
        self._loop.call_soon_threadsafe(self._report)
        self._loop.call_soon_threadsafe(self._cancel_abandoned)
        self._loop.call_soon_threadsafe(self._adjust_stream_interval)

    def execute(self, requests: list[Any]) -> None:
        """Hand each request to the loop; responses are sent from there (decoupled)."""
        for request in requests:
            self._loop.call_soon_threadsafe(self._accept, request, request.get_response_sender())

    def finalize(self) -> None:
        """Cancel what runs and stop the engine with its processes."""
        self._in_loop(self._cancel_all())
        self._outbox.close()
        self._engine.shutdown()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._published.close()

    def _accept(self, request: Any, sender: Any) -> None:
        inputs, parameters = Inputs(request), json.loads(request.parameters() or "{}")
        if inputs.scalar("stop", 0, False):
            if "owner" in parameters:
                self._stop_all_of(parameters["owner"])
            else:
                self._stop(request.request_id(), parameters.get("stream_id"))
            Reply(sender).end_empty()
            return
        errors_as_output = bool(parameters.get("error_output"))
        try:
            generations = list(read_generations(inputs, parameters, request.request_id()))
            self._check_room(len(generations))
        except RequestError as error:
            Reply(sender, errors_as_output=errors_as_output).fail(error)
            return
        request_id, requested = request.request_id(), set(request.requested_output_names())
        reply = Reply(
            sender, generations=len(generations), errors_as_output=errors_as_output, client_id=parameters.get("owner")
        )
        for batch, sequence, generation in generations:
            stream_id = next(self._stream_ids)
            outgoing = Outgoing(reply, Outputs(requested, inputs, stream_id, batch, sequence))
            task = self._loop.create_task(self._run(generation, outgoing), name=str(stream_id))
            self._tasks[request_id][task] = outgoing
            task.add_done_callback(partial(self._forget, request_id))

    def _check_room(self, more: int) -> None:
        """Whatever the frontends and other clients let through together, no more than this waits here."""
        if sum(map(len, self._tasks.values())) + more > self._max_requests:
            raise RequestError("The engine holds as many requests as it may; try again later", kind="unavailable")

    async def _run(self, generation: Generation, outgoing: Outgoing) -> None:
        """Stream one generation; whatever happens, its last response is sent."""
        try:
            async with aclosing(self._engine.generate(generation)) as stream:
                async for tokens in stream:
                    self._outbox.put(outgoing, tokens)
                    if tokens.finish is not None:
                        return
        except asyncio.CancelledError:
            self._outbox.put(outgoing, Tokens([], finish=FinishReason.CANCELLED))
        except RequestError as error:
            if error.kind != "invalid_request":
                log.error("a generation failed: %s", error, extra=about(generation.request_id))
            self._outbox.fail(outgoing, error)
        except Exception:
            log.exception("a generation failed", extra=about(generation.request_id))
            self._outbox.fail(outgoing, RequestError("the engine failed on this request", kind="internal"))

    def _stop(self, request_id: str, stream: int | None) -> None:
        """Cancel the running generations of a request id, or only the one with this stream id."""
        for task in list(self._tasks.get(request_id, ())):
            if stream is None or task.get_name() == str(stream):
                task.cancel()

    def _stop_all_of(self, client_id: str) -> None:
        """Cancel what a client left behind that died: inside an ensemble Triton does not cancel it."""
        for tasks in list(self._tasks.values()):
            for task, outgoing in list(tasks.items()):
                if outgoing.reply.client_id == client_id:
                    task.cancel()

    def _forget(self, request_id: str, task: "asyncio.Task[None]") -> None:
        tasks = self._tasks[request_id]
        outgoing = tasks.pop(task)
        if task.cancelled():
            # Stopped before its first step, so that `_run` never got to say so.
            self._outbox.put(outgoing, Tokens([], finish=FinishReason.CANCELLED))
        if not tasks:
            del self._tasks[request_id]

    async def _cancel_all(self) -> None:
        tasks = [task for tasks in self._tasks.values() for task in tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel_abandoned(self) -> None:
        """Cancel generations whose client cancelled its request or went away (outside an ensemble Triton knows)."""
        for tasks in list(self._tasks.values()):
            for task, outgoing in list(tasks.items()):
                self._outbox.call(partial(self._cancel_if_abandoned, task, outgoing.reply))
        self._loop.call_later(CANCEL_PERIOD_S, self._cancel_abandoned)

    def _cancel_if_abandoned(self, task: "asyncio.Task[None]", reply: Reply) -> None:
        if reply.abandoned():
            self._loop.call_soon_threadsafe(task.cancel)

    def _report(self) -> None:
        self._published.set(self._engine.statistics())
        self._loop.call_later(PERIOD_S, self._report)

    def _adjust_stream_interval(self) -> None:
        self._engine.adjust_stream_interval(self._outbox.tokens_per_response())
        self._loop.call_later(STREAM_INTERVAL_PERIOD_S, self._adjust_stream_interval)

    def _in_loop(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
