# SPDX-License-Identifier: Apache-2.0
"""A served model as it is loaded in Triton: the names of its Triton models, their health, and what they support."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from common.adapters import ADAPTERS, Adapter
from common.engine_statistics import MAX_MODEL_LEN, STATISTICS
from common.errors import RequestError
from common.model_names import ENGINE, POSTPROCESSING, PREPROCESSING, VIT, role, sibling
from common.response_batch import ANSWERS
from common.served_model import CHAT, EMBEDDING
from common.versions import BUILD_INFO, Versions
from frontend.triton.adapters import Adapters
from frontend.triton.client import TritonClient
from frontend.triton.embedding import encode_about
from frontend.triton.engine_statistics import EngineStatistics
from frontend.triton.model_health import PERIOD, PROBE_TIMEOUT, ModelHealth, lost_model
from frontend.triton.tensors import (
    CPP_PARAMETER,
    Capabilities,
    decode_adapters,
    decode_statistics,
    decode_versions,
    encode_adapters,
    encode_backend_adapters,
    encode_probe,
    encode_statistics,
    encode_versions,
)

logger = logging.getLogger(__name__)

ADAPTER_PATIENCE = 300.0  # seconds that an engine may take to load an adapter, whose files it reads

READINESS_PATIENCE = 0.5  # seconds that readiness waits for models to answer; orchestrators often allow 1 s in all


@dataclass(slots=True)
class _Call:
    """A request to a model of embeddings. error: why it is being cancelled, if not by its client."""

    sent_at: float
    error: RequestError | None = None


class Deployment:
    """What one served model is in Triton now. Requests stay with the deployment that they began on.

    ensemble: the Triton model that chats are sent to. engine: the one with the network, which stops are sent to, and
    requests for embeddings; of an embedding model that is served alone it is the same. models: all of them. successor:
    the deployment that a reload has made. Create it in a running event loop, `start` it, and `close` it at the end.
    """

    def __init__(self, triton: TritonClient, ensemble: str, engine: str, kind: str = CHAT) -> None:
        self._triton = triton
        self.ensemble, self.engine, self.kind = ensemble, engine, kind
        self.preprocessing, self.postprocessing = sibling(engine, PREPROCESSING), sibling(engine, POSTPROCESSING)
        steps = (self.preprocessing, sibling(engine, VIT), engine, self.postprocessing) if kind == CHAT else (engine,)
        self.models = tuple(dict.fromkeys((ensemble, *steps)))
        self.health = ModelHealth(steps, self._probe, self._overdue, self._model_died)
        self._calls: dict[asyncio.Task[pb.ModelInferResponse], _Call] = {}
        self.successor: Deployment | None = None
        self.adapters = Adapters(self._ask_adapters, lambda: triton.stream.connections)
        self._capabilities: Capabilities | None = None
        self._capabilities_of = 0
        self._versions = Versions()
        self._versions_of = 0
        self._statistics = EngineStatistics(self._read_statistics)
        self._context_length: int | None = None
        self._asking: asyncio.Task[None] | None = None
        self._monitoring: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to monitor the models."""
        self._triton.healths.add(self.health)
        self._monitoring = asyncio.create_task(self.health.run())

    async def retire(self, successor: "Deployment") -> None:
        """Take no more requests, and close once those in progress have ended."""
        self.successor = successor
        try:
            while self._calls or self._triton.stream.serves(self):
                await asyncio.sleep(PERIOD)
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop monitoring."""
        self._triton.healths.discard(self.health)
        for task in (self._monitoring, self._asking):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def engines(self) -> Sequence[str]:
        """Return the engines that a request may run on: Triton may have switched to the successor before it began."""
        return [self.engine] if self.successor is None else [self.engine, self.successor.engine]

    def fail_requests(self, error: RequestError) -> None:
        """Fail all requests in progress, and stop them in the engine."""
        self._triton.stream.fail_all(self, error, answered=True, stop=True)
        self._fail_calls(error)

    async def infer(self, request: pb.ModelInferRequest, timeout: float) -> pb.ModelInferResponse:
        """Send a request to the model of embeddings; cancelling the caller cancels it in Triton.

        Raises RequestError if it fails, or the error of `fail_requests`.
        """
        if self.health.dead:
            raise lost_model()
        task = asyncio.create_task(self._triton.infer(request, timeout, cancellable=True))
        self._calls[task] = call = _Call(time.monotonic())
        try:
            return await task
        except RequestError as error:
            if error.kind == "cancelled":
                # Not by the client: whoever cancels the caller gets no answer.
                raise RequestError("The engine cancelled the request", kind="unavailable") from None
            raise
        except asyncio.CancelledError:
            if call.error is not None:
                raise call.error from None
            raise
        finally:
            del self._calls[task]
            task.cancel()

    async def capabilities(self) -> Capabilities:
        """Return what the loaded models support, read once per connection to Triton."""
        await self._triton.stream.connected()
        connections = self._triton.stream.connections
        if self._capabilities is None or self._capabilities_of != connections:
            ensemble, engine = await asyncio.gather(
                self._triton.config(self.ensemble), self._triton.config(self.engine)
            )
            self._capabilities = Capabilities(
                inputs=frozenset(tensor.name for tensor in ensemble.input),
                python_engine=_is_python(engine),
                tells_adapters=any(output.name == ADAPTERS for output in engine.output),
                tells_statistics=any(output.name == STATISTICS for output in engine.output),
                batches=_is_python(engine) and any(output.name == ANSWERS for output in ensemble.output),
            )
            self._capabilities_of = connections
        return self._capabilities

    @property
    def batches(self) -> bool:
        """Whether one response of its models may hold tokens of several requests, once its capabilities are known."""
        return self._capabilities is not None and self._capabilities.batches

    async def versions(self) -> Versions:
        """Return what runs behind this model, read once per connection to Triton; nothing is known without one."""
        if not self._triton.stream.is_open:
            return Versions()
        connections = self._triton.stream.connections
        if self._versions_of != connections:
            try:
                async with asyncio.timeout(READINESS_PATIENCE):
                    self._versions = await self._read_versions()
            except (TimeoutError, RequestError) as error:
                logger.debug("the versions are not known: %s", error)
                return Versions()
            self._versions_of = connections
            logger.info("connected to Triton: %s", self._versions)
        return self._versions

    async def statistics(self) -> Mapping[str, Any]:
        """Return the engine's statistics, a fraction of a second old at most; empty if it tells none in time."""
        return await self._statistics.get()

    async def context_length(self) -> int | None:
        """Return the context length that the engine tells; None if it tells none, as those of chats, or not in time."""
        if self._context_length is None:
            self._context_length = (await self.statistics()).get(MAX_MODEL_LEN)
        return self._context_length

    async def readiness(self) -> dict[str, bool]:
        """Return whether each of the Triton models can serve."""
        answers = await asyncio.gather(*map(self._triton.model_ready, self.models))
        if all(answers):
            # Not enough: Triton reports a model that lost its process as ready.
            self._asking = asyncio.create_task(self.health.ask())
            await asyncio.wait({self._asking}, timeout=READINESS_PATIENCE)
        return {
            name: is_ready and name not in self.health.dead for name, is_ready in zip(self.models, answers, strict=True)
        }

    async def _read_versions(self) -> Versions:
        if self.kind == EMBEDDING:
            server, answer = await asyncio.gather(self._triton.server_version(), self._ask())
            return replace(decode_versions(answer), triton=server)
        server, engine = await asyncio.gather(self._triton.server_version(), self._triton.config(self.engine))
        versions = Versions(engine=None if engine.backend == "python" else engine.backend)
        if _is_python(engine) and any(output.name == BUILD_INFO for output in engine.output):
            encode = partial(encode_versions, engine=self.engine)
            versions = decode_versions(await self._triton.stream.probe_engine(encode))
        return replace(versions, triton=server)

    async def _read_statistics(self) -> Mapping[str, Any]:
        if not self._triton.stream.is_open:
            return {}
        capabilities = await self.capabilities()
        if not capabilities.python_engine:
            return await self._triton.backend_metrics.read(self.engine)
        if not capabilities.tells_statistics:
            return {}
        if self.kind == EMBEDDING:
            return decode_statistics(await self._ask(STATISTICS))
        return decode_statistics(await self._triton.stream.probe_engine(partial(encode_statistics, engine=self.engine)))

    async def _ask_adapters(self, change: Mapping[str, str | bool]) -> Sequence[Adapter]:
        """Ask for the adapters. change: parameters that load or unload one. Raises RequestError if that fails."""
        capabilities = await self.capabilities()
        if change and not (capabilities.python_engine and capabilities.tells_adapters):
            raise RequestError("the adapters of this engine cannot change while it runs")
        if not capabilities.tells_adapters:
            return ()
        if capabilities.python_engine:
            encode = partial(encode_adapters, engine=self.engine, change=change)
            answer = await self._triton.stream.probe_engine(encode, ADAPTER_PATIENCE if change else None)
        else:
            request = encode_backend_adapters(f"adapters-{uuid.uuid4().hex}", self.preprocessing)
            answer = await self._triton.infer(request, PROBE_TIMEOUT)
        return decode_adapters(answer)

    async def _probe(self, model: str) -> None:
        if self.kind == EMBEDDING:
            await self._ask()
        elif role(model) == ENGINE:
            await self._triton.stream.probe_engine(partial(encode_probe, model))
        else:
            await self._triton.infer(encode_probe(model, f"probe-{uuid.uuid4().hex}"), PROBE_TIMEOUT)

    async def _ask(self, output: str = BUILD_INFO) -> pb.ModelInferResponse:
        """Ask the model of embeddings for its versions, or for what this output tells."""
        return await self._triton.infer(encode_about(self.engine, f"probe-{uuid.uuid4().hex}", output), PROBE_TIMEOUT)

    def _overdue(self, seconds: float) -> bool:
        limit = time.monotonic() - seconds
        return self._triton.stream.overdue(self, seconds) or any(one.sent_at < limit for one in self._calls.values())

    def _fail_calls(self, error: RequestError) -> None:
        for task, call in self._calls.items():
            call.error = error.again()
            task.cancel()

    def _model_died(self, model: str) -> None:
        """Fail the requests inside the dead model or queued for it, as they will never be answered."""
        self._fail_calls(lost_model())
        everything = role(model) in (ENGINE, POSTPROCESSING)
        self._triton.stream.fail_all(self, lost_model(), answered=everything, stop=role(model) != ENGINE)


def _is_python(engine: Any) -> bool:
    """Whether a model config is that of a Python engine, not of the C++ backend or its double."""
    return engine.backend == "python" and CPP_PARAMETER not in engine.parameters
