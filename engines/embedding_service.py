# SPDX-License-Identifier: Apache-2.0
"""Serve the Triton model `embedding` with a pooling engine: one task and one response for each request."""

import asyncio
import gc
import json
import logging
import math
from dataclasses import asdict

import torch

from common.engine_statistics import MAX_MODEL_LEN
from common.engine_statistics import STATISTICS as STATISTICS_OUTPUT
from common.errors import RequestError
from common.logs import about
from common.versions import BUILD_INFO, Versions
from engines.embedding_tensors import pooled_tensors, read_request
from engines.engine import STATISTICS, engine_failure
from engines.event_loop import EngineLoop
from engines.options import EngineOptions, read_options
from engines.pooling import PoolingEngine
from engines.reply import Reply
from engines.tensors import Inputs, text_tensors
from python_backend.api import InferenceRequest, ResponseSender
from python_backend.config import ModelParameters
from python_backend.metrics import PERIOD_S, Published

# As many as OpenAI takes in one request.
MAX_INPUTS = 2048
# Between two questions to Triton whether a request was cancelled, each of which costs it about 0.13 ms.
CANCEL_PERIOD_S = 1.0

log = logging.getLogger("embedding")


class EmbeddingService:
    """A pooling engine and its running requests.

    model: the Triton model's name. max_requests: at once; more are refused as "unavailable". max_inputs: prompts or
    pairs of one request. versions: told to clients that ask.
    """

    def __init__(
        self,
        engine: PoolingEngine,
        model: str = "embedding",
        *,
        max_requests: int | None = None,
        max_inputs: int | None = None,
        versions: Versions | None = None,
    ) -> None:
        self._engine = engine
        self._model = model
        self._max_requests = max_requests or math.inf
        self._max_inputs = max_inputs or MAX_INPUTS
        self._versions = versions or Versions()
        self._loop = EngineLoop(log)
        self._running: dict[asyncio.Task[None], Reply] = {}

    @classmethod
    def from_config(cls, parameters: ModelParameters) -> "EmbeddingService":
        """Build the engine that the model's config describes; raises ValueError for a wrong option."""
        # The engine computes in other processes. The tensor operations of this one are too small for several threads.
        torch.set_num_threads(1)
        options = read_options(parameters)
        return cls(
            _build_engine(options, parameters.text("chat_template")),
            parameters.model,
            max_requests=parameters.integer("max_requests"),
            max_inputs=parameters.integer("max_inputs"),
            versions=Versions.find(options.engine),
        )

    def start(self) -> None:
        """Load the engine and return when it is ready; raises the engine's error if it cannot start."""
        log.info("%s", self._versions)
        self._loop.start()
        self._loop.run(self._engine.start())
        self._published = Published(self._model, "triton_chat_engine", STATISTICS)
        self._loop.repeat(PERIOD_S, lambda: self._published.set(self._engine.statistics()))
        self._loop.repeat(CANCEL_PERIOD_S, self._cancel_abandoned)

    def accept(self, request: InferenceRequest) -> None:
        """Pass a request to the loop, which sends the response later; may be called from any thread."""
        self._loop.call(self._accept, request, request.get_response_sender())

    def close(self) -> None:
        """Cancel what is running, which is answered, and stop the engine with its processes."""
        self._loop.run(self._cancel_all())
        self._engine.shutdown()
        self._loop.stop()
        self._published.close()
        # Errors hold requests in cycles of references. Freed at the interpreter's end, they crash the process (2.51).
        gc.collect()

    def _accept(self, request: InferenceRequest, sender: ResponseSender) -> None:
        """Start what a request asks for. Whatever is wrong with it, it is answered: Triton waits for its end."""
        reply = Reply(sender)
        try:
            asked = set(request.requested_output_names())
            if asked == {BUILD_INFO}:
                if json.loads(request.parameters() or "{}").get("all_requests"):
                    # From the launcher, when the grace time of a model that it unloads is over.
                    for running in self._running:
                        running.cancel()
                reply.end(text_tensors(BUILD_INFO, json.dumps(asdict(self._versions))))
                return
            if asked == {STATISTICS_OUTPUT}:
                told = {**self._engine.statistics(), MAX_MODEL_LEN: self._engine.max_model_len}
                reply.end(text_tensors(STATISTICS_OUTPUT, json.dumps(told)))
                return
        except Exception as error:
            _fail(request, reply, error)
            return
        task = asyncio.create_task(self._answer(request, reply))
        self._running[task] = reply
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        reply = self._running.pop(task)
        if task.cancelled():
            # Here, because a task that is cancelled before its first step runs none of its code.
            reply.fail(RequestError("the request was cancelled", kind="cancelled"))

    async def _answer(self, request: InferenceRequest, reply: Reply) -> None:
        """Compute the response, or answer what is wrong with the request."""
        try:
            if len(self._running) > self._max_requests:
                raise RequestError("The engine holds as many requests as it may; try again later", kind="unavailable")
            wanted = read_request(Inputs(request), request.request_id(), self._max_inputs)
            pooled = await self._engine.pool(wanted)
            reply.end(pooled_tensors(pooled, set(request.requested_output_names())))
        except Exception as error:
            _fail(request, reply, error)

    def _cancel_abandoned(self) -> None:
        """Cancel the requests whose client cancelled or disconnected."""
        for task, reply in list(self._running.items()):
            if reply.abandoned():
                task.cancel()

    async def _cancel_all(self) -> None:
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _fail(request: InferenceRequest, reply: Reply, error: Exception) -> None:
    """End a request with an error."""
    if not isinstance(error, RequestError):
        log.error("a request failed", exc_info=error, extra=about(request.request_id()))
        error = engine_failure()
    elif error.kind in ("internal", "unavailable"):
        log.error("a request failed: %s", error, extra=about(request.request_id()))
    reply.fail(error)


def _build_engine(options: EngineOptions, chat_template: str | None) -> PoolingEngine:
    if options.engine != "vllm":
        raise ValueError(f"embedding models are served by vLLM only, not by the engine '{options.engine}'")
    from engines.vllm.pooling import VllmPooling  # vLLM takes ten seconds to import.

    return VllmPooling(options, chat_template)
