# SPDX-License-Identifier: Apache-2.0
"""The one bidirectional gRPC stream of this process, shared by all requests and reopened when it breaks."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from frontend.cancellations import Cancellations
from frontend.errors import upstream_error
from frontend.inbox import Inbox
from frontend.tensors import ENGINE, encode_stop, has_finished
from preprocessing.errors import RequestError

logger = logging.getLogger(__name__)

CONNECT_WAIT = 1.0  # seconds that a request waits for a stream that is being reopened
BACKOFF_FIRST, BACKOFF_LAST = 0.05, 2.0  # seconds between attempts to reopen the stream


class TritonStream:
    """Sends requests, and hands each response to the inbox of its request id.

    `connections` counts the streams opened so far: a new one may mean a new Triton with other models.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = pb_grpc.GRPCInferenceServiceStub(channel)
        self._receivers: dict[str, tuple[Inbox, int]] = {}
        self._cancellations = Cancellations(self._send_stop)
        self._outgoing: asyncio.Queue[pb.ModelInferRequest] = asyncio.Queue()
        self._open = asyncio.Event()
        self.connections = 0

    async def submit(self, requests: Sequence[pb.ModelInferRequest], inbox: Inbox) -> None:
        """Send the requests of one generation; responses to the i-th go to the inbox as choice i.

        Raises RequestError (unavailable) where there is no stream.
        """
        if not self._open.is_set():
            try:
                await asyncio.wait_for(self._open.wait(), CONNECT_WAIT)
            except TimeoutError:
                raise RequestError("Triton cannot be reached at the moment", kind="unavailable") from None
        for choice, request in enumerate(requests):
            self._receivers[request.id] = (inbox, choice)
            self._outgoing.put_nowait(request)

    def cancel(self, request_id: str) -> None:
        """Nobody waits for the request any more: stop it, unless it has ended."""
        if self._receivers.pop(request_id, None) is not None:
            self._cancellations.add(request_id)

    async def run(self) -> None:
        """Keep a stream open until cancelled."""
        backoff = BACKOFF_FIRST
        while True:
            await self._channel.channel_ready()
            opened = asyncio.get_running_loop().time()
            try:
                await self._serve()
            finally:
                self._break()
            lasted = asyncio.get_running_loop().time() - opened
            backoff = BACKOFF_FIRST if lasted > BACKOFF_LAST else min(2 * backoff, BACKOFF_LAST)
            await asyncio.sleep(backoff)

    async def close(self, patience: float) -> None:
        """Wait until stops have been sent and answered, at most `patience` seconds."""
        deadline = asyncio.get_running_loop().time() + patience
        while self._open.is_set() and asyncio.get_running_loop().time() < deadline:
            if self._outgoing.empty() and not self._cancellations:
                break
            await asyncio.sleep(0.02)
        self._cancellations.clear()

    async def _serve(self) -> None:
        call = self._stub.ModelStreamInfer()
        writer = asyncio.create_task(self._write(call))
        self.connections += 1
        self._open.set()
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._dispatch(response)
            logger.warning("Triton closed the stream: %s", await call.details())
        except grpc.aio.AioRpcError as error:
            logger.warning("the stream to Triton broke: %s %s", error.code().name, error.details())
        finally:
            writer.cancel()
            call.cancel()

    async def _write(
        self, call: "grpc.aio.StreamStreamCall[pb.ModelInferRequest, pb.ModelStreamInferResponse]"
    ) -> None:
        # A call takes one write at a time; a failed one also ends the reader, which is where it is handled.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await self._outgoing.get())

    def _dispatch(self, message: pb.ModelStreamInferResponse) -> None:
        response = message.infer_response
        request_id = response.id
        if message.error_message:
            self._fail(request_id, message.error_message)
            return
        if response.model_name == ENGINE:  # the answer to a stop
            return
        receiver = self._receivers.get(request_id)
        if receiver is not None:
            inbox, choice = receiver
            inbox.put(choice, response)
        if has_finished(response):
            # What still comes for this id is ignored.
            self._receivers.pop(request_id, None)
            self._cancellations.done(request_id)
        elif receiver is None:
            self._cancellations.late_response(request_id)

    def _fail(self, request_id: str, text: str) -> None:
        """End the request that an error names, or all of them where it names none."""
        error = upstream_error(text)
        if error.kind in ("internal", "unavailable"):
            logger.error("Triton failed request %s: %s", request_id or "(all)", text)
        for failed in [request_id] if request_id else list(self._receivers):
            receiver = self._receivers.pop(failed, None)
            if receiver is not None:
                receiver[0].fail(error)

    def _send_stop(self, request_id: str) -> None:
        if self._open.is_set():
            self._outgoing.put_nowait(encode_stop(request_id))

    def _break(self) -> None:
        """Fail all that is under way; the next stream tells Triton to stop it, should the same Triton be there."""
        self._open.clear()
        self._outgoing = asyncio.Queue()
        receivers, self._receivers = self._receivers, {}
        for request_id, (inbox, _) in receivers.items():
            inbox.fail(RequestError("The connection to Triton was lost", kind="unavailable"))
            self._cancellations.add(request_id)
