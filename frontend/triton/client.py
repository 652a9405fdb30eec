# SPDX-License-Identifier: Apache-2.0
"""The connection to Triton: one channel with the shared stream and a few unary calls."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from common.errors import RequestError
from common.versions import BUILD_INFO, Versions
from frontend.errors import rpc_error
from frontend.triton.model_health import PERIOD, PROBE_TIMEOUT, ModelHealth, lost_model
from frontend.triton.stream import TritonStream
from frontend.triton.tensors import (
    CPP_PARAMETER,
    ENGINE,
    ENSEMBLE,
    MODELS,
    POSTPROCESSING,
    Capabilities,
    decode_versions,
    encode_probe,
    encode_versions,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")

CALL_TIMEOUT = 2.0  # seconds for a readiness or configuration call
READINESS_PATIENCE = 0.5  # seconds that readiness waits for models to answer; orchestrators often allow 1 s in all

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton drops a client that pings an idle connection more often than every 300 s, so pings stay above that.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # Shorter than a request waits for the stream: a Triton that is back serves at once.
    ("grpc.max_reconnect_backoff_ms", 500),
    # http_proxy, which containers often have set, is not for the way to Triton.
    ("grpc.enable_http_proxy", 0),
    # Without this, channels of one process to one address share a connection that fails for all of them.
    ("grpc.use_local_subchannel_pool", 1),
)


class TritonClient:
    """The client of one Triton server. `stream` carries the generations; unary calls raise RequestError."""

    def __init__(self, url: str, client_id: str | None) -> None:
        self._channel = grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)
        self._capabilities: Capabilities | None = None
        self._capabilities_of = 0
        steps = tuple(model for model in MODELS if model != ENSEMBLE)
        self._health = ModelHealth(steps, self._probe, self._overdue, self._model_died)
        self._asking: asyncio.Task[None] | None = None
        self._versions = Versions()
        self._versions_of = 0
        self.stream = TritonStream(self._channel, self._health, client_id)
        self._running: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Open the stream and begin to monitor the models."""
        self._running = [
            asyncio.create_task(self.stream.run()),
            asyncio.create_task(self._health.run()),
            asyncio.create_task(self._log_versions()),
        ]

    async def close(self, patience: float) -> None:
        """Send the last stops, wait at most `patience` seconds for their answers, and disconnect."""
        await self.stream.close(patience)
        for running in self._running:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
        await self._channel.close()

    async def capabilities(self) -> Capabilities:
        """Return what the loaded models support, read once per connection to Triton."""
        await self.stream.connected()
        connections = self.stream.connections
        if self._capabilities is None or self._capabilities_of != connections:
            ensemble, engine = await asyncio.gather(self._config(ENSEMBLE), self._config(ENGINE))
            self._capabilities = Capabilities(
                inputs=frozenset(tensor.name for tensor in ensemble.input),
                python_engine=_is_python(engine),
            )
            self._capabilities_of = connections
        return self._capabilities

    async def versions(self) -> Versions:
        """Return what runs behind this process, read once per connection to Triton; nothing is known without one."""
        if not self.stream.is_open:
            return Versions()
        connections = self.stream.connections
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

    async def infer(self, request: pb.ModelInferRequest, timeout: float) -> pb.ModelInferResponse:
        """Send one request and return its one response."""
        # Between two attempts to connect, the channel fails calls even if Triton is up by now.
        await self.stream.connected()
        return await self._call(self._stub.ModelInfer(request, timeout=timeout))

    async def readiness(self) -> dict[str, bool]:
        """Return whether Triton (key "triton") and each model can serve."""
        server = self._stub.ServerReady(pb.ServerReadyRequest(), timeout=CALL_TIMEOUT)
        models = [self._stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=CALL_TIMEOUT) for name in MODELS]
        answers = await asyncio.gather(server, *models, return_exceptions=True)
        parts = {
            name: getattr(answer, "ready", False) for name, answer in zip(("triton", *MODELS), answers, strict=True)
        }
        if all(parts.values()):
            # Not enough: Triton reports a model that lost its process as ready.
            self._asking = asyncio.create_task(self._health.ask())
            await asyncio.wait({self._asking}, timeout=READINESS_PATIENCE)
        return {name: is_ready and name not in self._health.dead for name, is_ready in parts.items()}

    async def _read_versions(self) -> Versions:
        server, engine = await asyncio.gather(
            self._call(self._stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=CALL_TIMEOUT)),
            self._config(ENGINE),
        )
        versions = Versions(engine=None if engine.backend == "python" else engine.backend)
        if _is_python(engine) and any(output.name == BUILD_INFO for output in engine.output):
            versions = decode_versions(await self.stream.probe_engine(encode_versions))
        return replace(versions, triton=server.version or None)

    async def _log_versions(self) -> None:
        """Read the versions after each connection, which logs them."""
        while True:
            await asyncio.sleep(PERIOD)
            await self.versions()

    async def _probe(self, model: str) -> None:
        if model == ENGINE:
            await self.stream.probe_engine()
        else:
            await self.infer(encode_probe(model, f"probe-{uuid.uuid4().hex}"), PROBE_TIMEOUT)

    def _overdue(self, seconds: float) -> bool:
        return self.stream.overdue(seconds)

    def _model_died(self, model: str) -> None:
        """Fail the requests inside the dead model or queued for it, as they will never be answered."""
        everything = model in (ENGINE, POSTPROCESSING)
        self.stream.fail_all(lost_model(), answered=everything, stop=model != ENGINE)

    async def _config(self, model: str) -> Any:
        request = pb.ModelConfigRequest(name=model)
        response = await self._call(self._stub.ModelConfig(request, timeout=CALL_TIMEOUT))
        return response.config

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            logger.warning("a call to Triton failed: %s %s", error.code().name, error.details())
            self._health.note_error(error.details() or "")
            raise rpc_error(error) from error


def _is_python(engine: Any) -> bool:
    """Whether a model config is that of a Python engine, not of the C++ backend or its double."""
    return engine.backend == "python" and CPP_PARAMETER not in engine.parameters
