# SPDX-License-Identifier: Apache-2.0
"""The connection to Triton: one channel with the shared stream and a few unary calls."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from common.errors import RequestError
from common.models_state import KEY_HEADER
from frontend.errors import LATE, rpc_error
from frontend.triton.backend_metrics import BackendMetrics
from frontend.triton.model_health import ModelHealth
from frontend.triton.stream import TritonStream

logger = logging.getLogger(__name__)
T = TypeVar("T")

CALL_TIMEOUT = 2.0  # seconds for a readiness or configuration call
ABANDONED_TIMEOUT = 300.0  # seconds after which an answer that nobody waits for any more is given up

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
    """The client of one Triton server. `stream` carries the generations; unary calls raise RequestError.

    healths: of the models that are served from there; each gets the errors that Triton reports.
    connected: is called whenever the stream was opened. key: `Settings.repository_key`.
    """

    def __init__(self, url: str, client_id: str | None, key: str | None = None, metrics_url: str | None = None) -> None:
        self._channel = grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)
        self._key = () if key is None else ((f"triton-grpc-protocol-{KEY_HEADER}", key),)
        self._running: asyncio.Task[None] | None = None
        self._inferences: set[asyncio.Task[pb.ModelInferResponse]] = set()
        self.healths: set[ModelHealth] = set()
        self.backend_metrics = BackendMetrics(metrics_url)
        self.connected: Callable[[], None] = _nothing
        self.stream = TritonStream(self._channel, self.note_error, self._stream_changed, client_id)

    def start(self) -> None:
        """Open the stream."""
        self._running = asyncio.create_task(self.stream.run())

    async def close(self, patience: float) -> None:
        """Send the last stops, wait at most `patience` seconds for their answers, and disconnect."""
        await self.stream.close(patience)
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        if self._inferences:
            await asyncio.wait(self._inferences, timeout=patience)
        await self._channel.close()
        await self.backend_metrics.close()

    async def infer(
        self, request: pb.ModelInferRequest, timeout: float, *, cancellable: bool = False
    ) -> pb.ModelInferResponse:
        """Send one request and return its one response.

        cancellable: if the caller is cancelled or the time is over, it is cancelled in Triton too. That is for long
        work only: tritonserver before 2.57 may abort if a cancellation meets the answer
        (github.com/triton-inference-server/server/issues/8034).
        """
        # Between two attempts to connect, the channel fails calls even if Triton is up by now.
        await self.stream.connected()
        if cancellable:
            return await self._call(self._stub.ModelInfer(request, timeout=timeout))
        call = self._call(self._stub.ModelInfer(request, timeout=timeout + ABANDONED_TIMEOUT))
        inference = asyncio.create_task(call)
        self._inferences.add(inference)
        inference.add_done_callback(self._forget)
        await asyncio.wait([inference], timeout=timeout)
        if not inference.done():
            kind, message = LATE
            raise RequestError(message, kind=kind)
        return inference.result()

    async def server_ready(self) -> bool:
        """Return whether Triton is ready."""
        return await _is_ready(self._stub.ServerReady(pb.ServerReadyRequest(), timeout=CALL_TIMEOUT))

    async def model_ready(self, model: str) -> bool:
        """Return whether Triton calls a model ready, even if it has lost its process."""
        return await _is_ready(self._stub.ModelReady(pb.ModelReadyRequest(name=model), timeout=CALL_TIMEOUT))

    async def server_version(self) -> str | None:
        """Return Triton's version."""
        answer = await self._call(self._stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=CALL_TIMEOUT))
        return answer.version or None

    async def config(self, model: str) -> Any:
        """Return a model's config."""
        request = pb.ModelConfigRequest(name=model)
        response = await self._call(self._stub.ModelConfig(request, timeout=CALL_TIMEOUT))
        return response.config

    async def index(self) -> Any:
        """Return the models in Triton's repository, loaded or not. Raises AioRpcError, as some servers refuse it."""
        answer = await self._stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=CALL_TIMEOUT, metadata=self._key)
        return answer.models

    def note_error(self, text: str) -> None:
        """Let the health of each model know of an error that Triton reported."""
        for health in list(self.healths):
            health.note_error(text)

    def _forget(self, inference: asyncio.Task[pb.ModelInferResponse]) -> None:
        self._inferences.discard(inference)
        if not inference.cancelled():
            inference.exception()  # of one that nobody waits for, which asyncio would log

    def _stream_changed(self, opened: bool) -> None:
        if opened:
            self.connected()
            return
        for health in self.healths:
            health.forget()

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            logger.warning("a call to Triton failed: %s %s", error.code().name, error.details())
            self.note_error(error.details() or "")
            raise rpc_error(error) from error


async def _is_ready(call: Awaitable[Any]) -> bool:
    try:
        return bool((await call).ready)
    except grpc.aio.AioRpcError:
        return False


def _nothing() -> None:
    """Do nothing."""
