# SPDX-License-Identifier: Apache-2.0
"""Serve Triton requests with an engine: one task per generation, responses streamed through the outbox."""

import asyncio
import gc
import itertools
import json
import logging
import math
from collections import deque
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from common.adapters import ADAPTERS, CHANGES, to_json
from common.engine_statistics import STATISTICS as STATISTICS_OUTPUT
from common.errors import RequestError
from common.finish_reason import FinishReason
from common.logs import about
from common.model_names import ENGINE
from common.response_batch import GROUP, TOKENS
from common.shared_bytes import answer_probes
from common.versions import BUILD_INFO, Versions
from engines.adapters import AdapterOptions, AdapterTable
from engines.engine import STATISTICS, Engine, Generation, Put, SharedEngine, Tokens, engine_failure
from engines.event_loop import EngineLoop
from engines.options import EngineOptions, read_options
from engines.outbox import Outbox, Outgoing
from engines.peers import Peers
from engines.registry import build_engine
from engines.reply import Reply
from engines.running import RunningGenerations
from engines.tensors import Inputs, Outputs, read_generations, text_tensors
from python_backend.api import InferenceRequest, ResponseSender
from python_backend.config import ModelParameters
from python_backend.metrics import PERIOD_S, Published

# Asking Triton whether a request was cancelled costs about 0.13 ms, as much as sending a response: not once per token.
CANCEL_PERIOD_S = 1.0
# The parameters of a stop that say what it stops.
STOPS = ("owner", "all_requests", "stream_id")
# How much later a stop is tried once more if no process has the request.
STOP_AGAIN_S = 0.1

log = logging.getLogger("tensorrt_llm")


class EngineService:
    """An engine and its running generations, on an event loop with a thread of its own.

    max_requests: generations at once; more are refused as "unavailable". versions: told to clients that ask.
    model: the name of this Triton model. instance, instances: the number of this process, and of all that share the
    engine.
    """

    def __init__(
        self,
        engine: Engine,
        max_requests: int | None = None,
        versions: Versions | None = None,
        model: str = ENGINE,
        instance: int = 0,
        instances: int = 1,
    ) -> None:
        self._engine = engine
        self._instance, self._instances = instance, instances
        self._peers: Peers | None = None
        self._reports: dict[int, Any] = {}
        # By another process.
        self._engine_ended = False
        # Engines of others may know nothing of adapters.
        self._adapters: AdapterTable | None = getattr(engine, "adapters", None)
        self._model = model
        self._versions = versions or Versions()
        self._max_requests = max_requests or math.inf
        self._loop = EngineLoop(log)
        self._waiting: deque[tuple[InferenceRequest, ResponseSender]] = deque()
        # Of a request that a client sends again under its id, which another process may get.
        self._stream_ids = itertools.count(1 + instance, instances)
        self._controls: set[asyncio.Task[None]] = set()
        self._publishing: asyncio.Task[None] | None = None

    @classmethod
    def from_config(cls, parameters: ModelParameters) -> "EngineService":
        """Build the engine that the model's config names; raises ValueError for a wrong option."""
        # The engine computes in other processes. The tensor operations of this one are too small for several threads.
        torch.set_num_threads(1)
        options = read_options(parameters)
        engine = build_engine(options)
        if options.adapters != AdapterOptions() and getattr(engine, "adapters", None) is None:
            raise ValueError(f"the engine {options.engine} takes no LoRA adapters (lora_modules, allowed_lora_path)")
        if parameters.instances > 1:
            _check_shared(engine, options)
        return cls(
            engine,
            parameters.integer("max_requests"),
            Versions.find(options.engine),
            parameters.model,
            parameters.instance,
            parameters.instances,
        )

    def start(self) -> None:
        """Load the engine and return when it is ready; raises the engine's error if it cannot start."""
        log.info("%s", self._versions)
        self._loop.start()
        self._outbox = Outbox(self._loop.soon)
        self._running = RunningGenerations(self._end_cancelled, self._tell_count)
        self._loop.run(self._start_engine())
        answer_probes()
        # What the engine has made stays: later collections pass over it.
        gc.collect()
        gc.freeze()
        self._published = Published(self._model, "triton_chat_engine", STATISTICS)
        if self._instance == 0:
            # Processes that publish a metric under one name would overwrite each other's gauges.
            self._loop.repeat(PERIOD_S, self._publish_statistics)
        self._loop.repeat(CANCEL_PERIOD_S, self._cancel_abandoned)

    def accept(self, *requests: InferenceRequest) -> None:
        """Pass requests to the loop, which sends the responses later; may be called from any thread."""
        accepted = [(request, request.get_response_sender()) for request in requests]
        if accepted:
            self._loop.call(self._enqueue, accepted)

    def close(self) -> None:
        """Cancel what is running, send its last responses, and stop the engine with its processes."""
        self._loop.run(self._running.cancel_all())
        self._outbox.close()
        if self._peers is not None:
            self._loop.run(self._peers.close())
        if not self._engine_ended:
            self._engine.shutdown()
        self._loop.stop()
        self._published.close()

    async def _start_engine(self) -> None:
        if not isinstance(self._engine, SharedEngine) or self._instances == 1:
            await self._engine.start()
            return
        peers = Peers(self._model, self._instance, self._instances, self._answer_peer, self._engine.disconnect)
        try:
            await peers.start()
            await self._engine.start_with(peers)
        except BaseException:
            await peers.close()
            raise
        self._peers = peers

    async def _answer_peer(self, question: str, about: Any) -> Any:
        """Answer another process that shares the engine."""
        if question == "stop":
            return self._stop(*about)
        elif question == "report" and isinstance(self._engine, SharedEngine):
            return self._engine.report()
        elif question == "end":
            await self._running.cancel_all()
            # Without peers it has not started yet: `start_with` fails, and ends it.
            if self._peers is not None:
                self._engine_ended = True
                self._engine.shutdown()
        return None

    def _enqueue(self, accepted: list[tuple[InferenceRequest, ResponseSender]]) -> None:
        """Let requests follow those that wait already: a stop may not overtake its request."""
        idle = not self._waiting
        self._waiting += accepted
        if idle:
            self._accept_next()

    def _accept_next(self) -> None:
        """Start the first request, and the others in later turns: the engine gets the first before the last is read."""
        self._accept(*self._waiting.popleft())
        if self._waiting:
            self._loop.soon(self._accept_next)

    def _accept(self, request: InferenceRequest, sender: ResponseSender) -> None:
        """Start what a request asks for. Whatever is wrong with it, it is answered: Triton waits for its end."""
        errors_as_output = False
        try:
            parameters: dict[str, Any] = json.loads(request.parameters() or "{}")
            errors_as_output = bool(parameters.get("error_output"))
            self._begin(request, sender, parameters, errors_as_output)
            return
        except RequestError as error:
            failure = error
        except Exception:
            log.exception("a request failed", extra=about(request.request_id()))
            failure = engine_failure()
        try:
            Reply(sender, errors_as_output=errors_as_output).fail(failure)
        except Exception:
            # The requests behind it still wait for their turn.
            log.exception("a failure could not be sent", extra=about(request.request_id()))

    def _begin(
        self, request: InferenceRequest, sender: ResponseSender, parameters: dict[str, Any], errors_as_output: bool
    ) -> None:
        """Start the generations of a request, or stop those of another. Raises RequestError for a wrong request."""
        inputs = Inputs(request)
        if inputs.scalar("stop", 0, False):
            self._control(request, Reply(sender), parameters)
            return
        generations = list(read_generations(inputs, parameters, request.request_id(), self._check_room))
        if self._adapters is None and any(each.lora_task_id is not None for _, _, each in generations):
            raise RequestError("this engine was started without LoRA adapters (enable_lora)", param="lora_task_id")
        request_id, requested = request.request_id(), set(request.requested_output_names())
        group = _group(parameters, requested, generations)
        reply = Reply(
            sender, generations=len(generations), errors_as_output=errors_as_output, client_id=parameters.get("owner")
        )
        started = []
        for batch, sequence, generation in generations:
            stream_id = next(self._stream_ids)
            outputs = Outputs(requested, inputs, stream_id, batch, sequence)
            if group is not None:
                outputs.begin_rows(request_id, request.parameters())
            started.append((generation, Outgoing(reply, outputs, group)))
        # Not before all are ready: a request that is refused has no generation which runs on.
        for generation, outgoing in started:
            self._running.start(request_id, outgoing, self._generate(generation, outgoing))

    def _control(self, request: InferenceRequest, reply: Reply, parameters: dict[str, Any]) -> None:
        """Answer a request that generates nothing: a stop, or a question that is sent as one."""
        asked = set(request.requested_output_names())
        if asked == {ADAPTERS}:
            self._start(reply, self._tell_adapters(reply, parameters))
            return
        # Who asks for nothing in particular is said to ask for all outputs.
        if self._peers is not None and asked not in ({BUILD_INFO}, {STATISTICS_OUTPUT}):
            self._start(reply, self._stop_all(self._peers, request.request_id(), reply, parameters))
            return
        self._stop(request.request_id(), parameters)
        if asked == {BUILD_INFO}:
            reply.end(text_tensors(BUILD_INFO, json.dumps(asdict(self._versions))))
        elif asked == {STATISTICS_OUTPUT}:
            self._start(reply, self._tell_statistics(reply))
        else:
            reply.end_empty()

    def _start(self, reply: Reply, control: Coroutine[Any, Any, None]) -> None:
        """Run what a request asks for that generates nothing. Whatever fails, it is answered."""
        task = asyncio.create_task(_answered(reply, control))
        self._controls.add(task)
        task.add_done_callback(self._controls.discard)

    async def _stop_all(self, peers: Peers, request_id: str, reply: Reply, parameters: Mapping[str, Any]) -> None:
        """Stop generations in all processes: any of them may have got the request."""
        which = {name: parameters[name] for name in STOPS if name in parameters}
        here = self._stop(request_id, which)
        there = await peers.ask_all("stop", [request_id, which])
        if not (here or any(there.values()) or "stream_id" in parameters):
            # A stop right behind its request may be in one process before the request is in another. Whoever knows a
            # stream id has had a response, and waits for the answer with all other streams (postprocessing).
            await asyncio.sleep(STOP_AGAIN_S)
            self._stop(request_id, which)
            await peers.ask_all("stop", [request_id, which])
        reply.end_empty()

    async def _tell_statistics(self, reply: Reply) -> None:
        reply.end(text_tensors(STATISTICS_OUTPUT, json.dumps(await self._statistics())))

    async def _statistics(self) -> Mapping[str, Any]:
        """The engine's statistics and its adapters in use, of all processes."""
        if self._peers is not None and isinstance(self._engine, SharedEngine):
            # Of a process that does not answer the last report, as counters must not fall.
            self._reports |= await self._peers.ask_all("report")
            return self._engine.shared_statistics(list(self._reports.values()))
        # Engines of others may know nothing of adapters.
        adapters: Mapping[str, Any] = getattr(self._engine, "adapters_in_use", dict)()
        return {**self._engine.statistics(), **adapters}

    async def _tell_adapters(self, reply: Reply, parameters: dict[str, Any]) -> None:
        """Load or unload the adapter that the parameters name, if any, and tell which there are."""
        if self._adapters is not None:
            await self._adapters.change(parameters)
        elif CHANGES & parameters.keys():
            raise RequestError("this engine was started without LoRA adapters (enable_lora)")
        reply.end(text_tensors(ADAPTERS, to_json(self._adapters.all() if self._adapters else ())))

    def _stop(self, request_id: str, parameters: Mapping[str, Any]) -> bool:
        """Stop generations of this process; returns False if the request that is meant is not here."""
        if "owner" in parameters:
            self._running.cancel_client(parameters["owner"])
        elif parameters.get("all_requests"):
            # From the launcher, when the grace time of a model that it unloads is over.
            self._running.cancel_each()
        else:
            return self._running.cancel(request_id, parameters.get("stream_id"))
        return True

    def _tell_count(self) -> None:
        """Tell the other processes how many generations run here."""
        if self._peers is not None:
            self._peers.running(len(self._running))

    def _check_room(self, more: int) -> None:
        """Raise RequestError if this many more generations would exceed the limit, whoever admitted them."""
        here = len(self._running)
        running = here if self._peers is None else self._peers.running(here)
        if running + more > self._max_requests:
            raise RequestError("The engine holds as many requests as it may; try again later", kind="unavailable")

    async def _generate(self, generation: Generation, outgoing: Outgoing) -> None:
        """Stream one generation; its last response is sent in every case."""
        put: Put = partial(self._outbox.put, outgoing)
        if generation.return_prompt_ids:
            put = _with_prompt_ids(generation, put)
        try:
            await self._engine.generate(generation, put)
            if outgoing.ended:
                return
            log.error("a generation ended without a finish reason", extra=about(generation.request_id))
            self._outbox.fail(outgoing, engine_failure())
        except asyncio.CancelledError:
            self._end_cancelled(outgoing)
        except RequestError as error:
            if error.kind != "invalid_request":
                log.error("a generation failed: %s", error, extra=about(generation.request_id))
            self._outbox.fail(outgoing, error)
        except Exception:
            log.exception("a generation failed", extra=about(generation.request_id))
            self._outbox.fail(outgoing, engine_failure())

    def _end_cancelled(self, outgoing: Outgoing) -> None:
        self._outbox.put(outgoing, Tokens([], finish=FinishReason.CANCELLED))

    def _cancel_abandoned(self) -> None:
        """Cancel generations whose client disconnected or cancelled: Triton knows it outside an ensemble."""
        for task, outgoing in self._running:
            self._outbox.call(partial(self._cancel_if_abandoned, task, outgoing.reply))

    def _cancel_if_abandoned(self, task: "asyncio.Task[None]", reply: Reply) -> None:
        if reply.abandoned():
            self._loop.call(task.cancel)

    def _publish_statistics(self) -> None:
        if self._peers is None:
            self._published.set(self._engine.statistics())
        elif self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_shared())

    async def _publish_shared(self) -> None:
        values = await self._statistics()
        self._published.set({name: value for name, value in values.items() if name in STATISTICS})


async def _answered(reply: Reply, control: Coroutine[Any, Any, None]) -> None:
    try:
        await control
    except RequestError as error:
        reply.fail(error)
    except Exception:
        log.exception("a request failed")
        reply.fail(engine_failure())


def _with_prompt_ids(generation: Generation, put: Put) -> Put:
    """Add the ids of the prompt to the first tokens."""
    first = True

    def put_first(tokens: Tokens) -> None:
        nonlocal first
        if first and tokens.prompt_ids is None:
            tokens.prompt_ids = [[token_id] for token_id in generation.prompt_ids]
        first = False
        put(tokens)

    return put_first


def _check_shared(engine: Engine, options: EngineOptions) -> None:
    """Raise ValueError if several processes cannot share this engine."""
    if not isinstance(engine, SharedEngine):
        raise ValueError(f"the engine {options.engine} runs in one process: instance_group must have the count 1")
    if options.adapters.allowed:
        # Each process has a table of its own.
        raise ValueError("with several instances of tensorrt_llm adapters cannot change: leave out allowed_lora_path")


def _group(
    parameters: Mapping[str, Any], requested: Collection[str], generations: Sequence[tuple[int, int, Generation]]
) -> str | None:
    """The response group of a request, if all that it asks for can be in a batch; None for responses of its own."""
    if TOKENS not in requested or len(generations) != 1:
        return None
    _, _, generation = generations[0]
    if generation.return_log_probs or generation.return_prompt_ids or generation.prompt_logprobs is not None:
        return None
    group = parameters.get(GROUP)
    return None if group is None else str(group)
