# SPDX-License-Identifier: Apache-2.0
"""The connection to Triton: one channel, the shared stream on it, and the few unary calls beside it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from frontend.errors import rpc_error
from frontend.tensors import ENGINE, ENSEMBLE, MODELS, Capabilities
from frontend.triton_stream import TritonStream

logger = logging.getLogger(__name__)
T = TypeVar("T")

PROBE_TIMEOUT = 2.0  # seconds for a readiness or configuration call

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Triton drops a client that pings an idle connection more often than every 300 s, so pings stay above that.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Without this, channels of one process to one address share a connection that fails for all of them.
    ("grpc.use_local_subchannel_pool", 1),
)


class TritonClient:
    """Unary calls raise RequestError; `stream` carries the generations."""

    def __init__(self, url: str) -> None:
        self._channel = grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)
        self._capabilities: Capabilities | None = None
        self._capabilities_of = 0
        self.stream = TritonStream(self._channel)
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._running = asyncio.create_task(self.stream.run())

    async def close(self, patience: float) -> None:
        """Send the last stops, wait for them at most `patience` seconds, disconnect."""
        await self.stream.close(patience)
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        await self._channel.close()

    async def capabilities(self) -> Capabilities:
        """What the loaded models can honour, read once for each connection to Triton."""
        connections = self.stream.connections
        if self._capabilities is None or self._capabilities_of != connections:
            ensemble, engine = await asyncio.gather(self._config(ENSEMBLE), self._config(ENGINE))
            self._capabilities = Capabilities(
                inputs=frozenset(tensor.name for tensor in ensemble.input), python_engine=engine.backend == "python"
            )
            self._capabilities_of = connections
        return self._capabilities

    async def infer(self, request: pb.ModelInferRequest, timeout: float) -> pb.ModelInferResponse:
        """One request, one response."""
        return await _call(self._stub.ModelInfer(request, timeout=timeout))

    async def readiness(self) -> dict[str, bool]:
        """Whether Triton (key "triton") and each model can serve."""
        server = self._stub.ServerReady(pb.ServerReadyRequest(), timeout=PROBE_TIMEOUT)
        models = [self._stub.ModelReady(pb.ModelReadyRequest(name=name), timeout=PROBE_TIMEOUT) for name in MODELS]
        answers = await asyncio.gather(server, *models, return_exceptions=True)
        return {
            name: getattr(answer, "ready", False) for name, answer in zip(("triton", *MODELS), answers, strict=True)
        }

    async def _config(self, model: str) -> Any:
        request = pb.ModelConfigRequest(name=model)
        response = await _call(self._stub.ModelConfig(request, timeout=PROBE_TIMEOUT))
        return response.config


async def _call(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        logger.warning("a call to Triton failed: %s %s", error.code().name, error.details())
        raise rpc_error(error) from error
