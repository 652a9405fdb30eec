# SPDX-License-Identifier: Apache-2.0
"""The bidirectional gRPC stream of this process, shared by all requests and reopened when it breaks."""

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from common.errors import RequestError
from common.logs import about
from common.model_names import ENGINE, POSTPROCESSING, role, sibling
from common.response_batch import AnswerRow
from frontend.errors import upstream_error
from frontend.triton.cancellations import Cancellations
from frontend.triton.model_health import lost_model
from frontend.triton.receiver import Receiver, Target
from frontend.triton.response_queue import ResponseQueue
from frontend.triton.tensors import (
    Delta,
    answer_rows,
    ask_for_counts,
    decode_delta,
    encode_forget,
    encode_stop,
    encode_stop_all,
    ends,
    has_finished,
    is_final,
    row_delta,
    row_size,
    set_group,
)

logger = logging.getLogger(__name__)

CONNECT_WAIT = 1.0  # seconds that a request waits for a stream that is being reopened
GATHER = 0.005  # seconds for which requests to engines are gathered
ROW_PATIENCE = 5.0  # seconds for which a row of a batch may come later than rows after it
ENGINE_PATIENCE = 10.0  # seconds that an engine may take to answer a stop or a probe
BACKOFF_FIRST, BACKOFF_LAST = 0.05, 0.5  # seconds between attempts to reopen the stream


class TritonStream:
    """Sends requests, and puts each response into the queue of its request.

    `connections` counts the streams opened so far: after a new one, Triton may have other models.
    note_error: gets the text of every error. changed: called when the stream was opened (True) or broke (False).
    client_id: `Settings.owner`.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        note_error: Callable[[str], None],
        changed: Callable[[bool], None],
        client_id: str | None,
    ) -> None:
        self._channel = channel
        self._stub = pb_grpc.GRPCInferenceServiceStub(channel)
        self._note_error = note_error
        self._changed = changed
        self._client_id = client_id
        self._began = time.time()
        self._receivers: dict[str, Receiver] = {}
        self._probes: dict[str, asyncio.Future[pb.ModelInferResponse]] = {}
        self._cancellations = Cancellations(self._send_stop)
        self._outgoing: asyncio.Queue[pb.ModelInferRequest] = asyncio.Queue()
        self._open = asyncio.Event()
        self._to_engines: list[pb.ModelInferRequest] = []
        self._short: set[asyncio.Task[None]] = set()
        self.connections = 0
        self._group = ""

    @property
    def is_open(self) -> bool:
        """Whether requests can be sent now."""
        return self._open.is_set()

    async def connected(self) -> None:
        """Wait until the stream is open; raises RequestError (unavailable) after CONNECT_WAIT."""
        if not self._open.is_set():
            try:
                async with asyncio.timeout(CONNECT_WAIT):
                    await self._open.wait()
            except TimeoutError:
                raise RequestError("Triton cannot be reached at the moment", kind="unavailable") from None

    async def submit(
        self,
        requests: Sequence[pb.ModelInferRequest],
        queue: ResponseQueue,
        target: Target,
        trace_headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send the requests of one generation; responses to request i are put into the queue as choice i.

        trace_headers: the trace that Triton continues. It reads them once per stream, so these requests get their own.
        Raises RequestError (unavailable) if there is no stream or a model of the target is dead.
        """
        await self.connected()
        if target.health.dead:
            raise lost_model()
        for choice, request in enumerate(requests):
            self._receivers[request.id] = Receiver(queue, choice, target, time.monotonic())
            if trace_headers is None and target.batches:
                set_group(request, self._group)
            else:
                # A row of a batch has the count of tokens anyway.
                ask_for_counts(request)
            if trace_headers is None:
                self._outgoing.put_nowait(request)
        if trace_headers is not None:
            self._begin(self._serve_traced(requests, trace_headers))

    def cancel(self, request_id: str) -> None:
        """Stop a request that nobody waits for any more, unless it has ended."""
        if (receiver := self._receivers.pop(request_id, None)) is not None:
            self._cancellations.add(request_id, receiver.target.engines)

    def serves(self, target: Target) -> bool:
        """Return whether a request of this target is in progress."""
        return any(one.target is target for one in self._receivers.values())

    def overdue(self, target: Target, seconds: float) -> bool:
        """Return whether a request of this target has waited this long without any response."""
        limit = time.monotonic() - seconds
        return any(
            not one.answered and one.sent_at < limit and one.target is target for one in self._receivers.values()
        )

    def fail_all(self, target: Target, error: RequestError, *, answered: bool, stop: bool) -> None:
        """Fail the target's requests in progress, those with a response only if `answered`. stop: in the engine too."""
        # Responses to requests that began on a dead process of postprocessing must not carry rows of later ones.
        self._group = uuid.uuid4().hex
        failed = [
            key for key, one in self._receivers.items() if one.target is target and (answered or not one.answered)
        ]
        for request_id in failed:
            self._receivers.pop(request_id).queue.fail(error.again())
            if stop:
                self._cancellations.add(request_id, target.engines)

    def stop_left_over(self, engine: str) -> None:
        """Stop the requests in an engine that an earlier process of this name may have left there.

        Triton cancels the dead process's requests to the ensemble, so that `postprocessing` never gets their last rows.
        """
        if self._client_id is not None and self._open.is_set():
            self._send_to_engine(encode_stop_all(self._client_id, f"stop-{uuid.uuid4().hex}", engine))
            postprocessing = sibling(engine, POSTPROCESSING)
            forget = encode_forget(self._client_id, self._began, f"forget-{uuid.uuid4().hex}", postprocessing)
            self._send_to_engine(forget)

    async def probe_engine(
        self, encode: Callable[[str], pb.ModelInferRequest], patience: float | None = None
    ) -> pb.ModelInferResponse:
        """Return the engine's answer to the request that `encode` makes of an id; raises RequestError if it failed.

        patience: seconds that the answer may take; None for a request that the engine answers at once, such as a stop.
        """
        if not self._open.is_set():
            raise RequestError("Triton cannot be reached at the moment", kind="unavailable")
        request_id = f"probe-{uuid.uuid4().hex}"
        self._probes[request_id] = answered = asyncio.get_running_loop().create_future()
        if patience is None:
            self._send_to_engine(encode(request_id))
        else:
            self._begin(self._serve_engines([encode(request_id)], patience))
        try:
            return await answered
        finally:
            del self._probes[request_id]

    async def run(self) -> None:
        """Keep a stream open until cancelled."""
        backoff = BACKOFF_FIRST
        while True:
            await self._channel.channel_ready()
            opened = asyncio.get_running_loop().time()
            try:
                await self._serve()
            except Exception:
                # Of any kind: this process is of no use without a stream.
                logger.exception("the stream to Triton failed")
            finally:
                self._break()
            lasted = asyncio.get_running_loop().time() - opened
            backoff = BACKOFF_FIRST if lasted > BACKOFF_LAST else min(2 * backoff, BACKOFF_LAST)
            await asyncio.sleep(backoff)

    async def close(self, patience: float) -> None:
        """Wait at most `patience` seconds until stops have been sent and answered."""
        deadline = asyncio.get_running_loop().time() + patience
        while self._open.is_set() and asyncio.get_running_loop().time() < deadline:
            if self._outgoing.empty() and not self._cancellations and not self._to_engines:
                break
            await asyncio.sleep(0.02)
        self._cancellations.clear()
        for short in self._short:
            short.cancel()

    async def _serve(self) -> None:
        call = self._stub.ModelStreamInfer()
        writer = asyncio.create_task(self._write(call))
        self.connections += 1
        self._group = uuid.uuid4().hex
        self._open.set()
        self._changed(True)
        try:
            while (response := await call.read()) is not grpc.aio.EOF:
                self._dispatch(response)
            logger.warning("Triton closed the stream: %s", await call.details())
        except grpc.aio.AioRpcError as error:
            logger.warning("the stream to Triton broke: %s %s", error.code().name, error.details())
        finally:
            writer.cancel()
            call.cancel()

    async def _serve_traced(self, requests: Sequence[pb.ModelInferRequest], trace_headers: Mapping[str, str]) -> None:
        call = self._stub.ModelStreamInfer(metadata=tuple(trace_headers.items()))
        try:
            for request in requests:
                await call.write(request)
            await call.done_writing()
            while (response := await call.read()) is not grpc.aio.EOF:
                self._dispatch(response)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            logger.warning("a traced stream to Triton broke: %s", error)
        finally:
            call.cancel()
            for request in requests:
                receiver = self._receivers.pop(request.id, None)
                if receiver is not None:
                    receiver.queue.fail(RequestError("The connection to Triton was lost", kind="unavailable"))
                    self._cancellations.add(request.id, receiver.target.engines)

    async def _write(
        self, call: "grpc.aio.StreamStreamCall[pb.ModelInferRequest, pb.ModelStreamInferResponse]"
    ) -> None:
        # A call takes one write at a time. A failed write also ends the reader, which handles it.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while True:
                await call.write(await self._outgoing.get())

    def _dispatch(self, message: pb.ModelStreamInferResponse) -> None:
        response = message.infer_response
        request_id = response.id
        if message.error_message:
            self._fail(request_id, message.error_message)
            return
        rows = answer_rows(response)
        if rows is not None:
            self._dispatch_rows(rows)
            if is_final(response) and not any(row[0] == request_id and ends(row[3]) for row in rows):
                self._end_unfinished(request_id)
            return
        receiver = self._receivers.get(request_id)
        if receiver is None and role(response.model_name) == ENGINE:  # the answer to a stop or a probe
            if request_id in self._probes and not self._probes[request_id].done():
                self._probes[request_id].set_result(response)
            return
        if receiver is not None:
            receiver.answered = True
            receiver.queue.put(receiver.choice, decode_delta(response), response.ByteSize())
        if has_finished(response):
            # Later responses of this id are ignored.
            self._receivers.pop(request_id, None)
            self._cancellations.done(request_id)
        elif receiver is None:
            self._cancellations.late_response(request_id)

    def _dispatch_rows(self, rows: Sequence[Sequence[Any]]) -> None:
        """Hand over the rows of a batch. rows: the fields of AnswerRow, and what a newer version adds."""
        for request_id, number, text, more, *rest in rows:
            receiver = self._receivers.get(request_id)
            if receiver is not None:
                # None comes from an older version of postprocessing.
                tokens = rest[0] if rest else None
                # Nearly all rows are only text.
                if more or not receiver.take_text(number, text, tokens):
                    self._dispatch_row(receiver, AnswerRow(request_id, number, text, more, tokens))
            elif ends(more):
                self._cancellations.done(request_id)
            else:
                self._cancellations.late_response(request_id)

    def _dispatch_row(self, receiver: Receiver, row: AnswerRow) -> None:
        """Hand over a row of a batch, unless one of the same request that is before it has not come yet."""
        receiver.answered = True
        ready = receiver.rows.add(row)
        if receiver.rows.held:
            loop, awaited = asyncio.get_running_loop(), receiver.rows.next
            loop.call_later(ROW_PATIENCE, self._give_up_row, row.request_id, receiver, awaited)
        for one in ready:
            # What takes a row may end its request.
            if row.request_id in self._receivers:
                receiver.queue.put(receiver.choice, row_delta(one), row_size(one), one.tokens)
            if ends(one.more):
                # Later responses of this id are ignored.
                self._receivers.pop(row.request_id, None)
                self._cancellations.done(row.request_id)
                return

    def _give_up_row(self, request_id: str, receiver: Receiver, number: int) -> None:
        """Fail a request that still waits for this row: the response that it came in has failed for another request."""
        if self._receivers.get(request_id) is receiver and receiver.rows.next == number:
            logger.error("a part of an answer was lost", extra=about(request_id))
            del self._receivers[request_id]
            receiver.queue.fail(RequestError("A part of the answer was lost", kind="internal"))
            self._cancellations.add(request_id, receiver.target.engines)

    def _end_unfinished(self, request_id: str) -> None:
        """End a request whose last response says nothing of how its answer ended, which is the engine's fault."""
        receiver = self._receivers.pop(request_id, None)
        if receiver is not None:
            receiver.queue.put(receiver.choice, Delta(final=True), 0)
        self._cancellations.done(request_id)

    def _fail(self, request_id: str, text: str) -> None:
        """Fail the request that an error names, or all requests if it names none."""
        error = upstream_error(text)
        # Ignore errors of requests that nobody waits for: Triton may fail one seconds after its model was reloaded.
        if not request_id or request_id in self._probes or request_id in self._receivers:
            # First, because it may find a dead model and fail other requests too.
            self._note_error(text)
        if request_id in self._probes:
            if not self._probes[request_id].done():
                self._probes[request_id].set_exception(error)
            return
        if error.kind in ("internal", "unavailable"):
            logger.error("Triton failed a request: %s", text, extra=about(request_id or "(all)"))
        for failed in [request_id] if request_id else list(self._receivers):
            receiver = self._receivers.pop(failed, None)
            if receiver is not None:
                receiver.queue.fail(error if request_id else error.again())

    def _send_stop(self, request_id: str, engine: str) -> None:
        if self._open.is_set():
            self._send_to_engine(encode_stop(request_id, engine))

    def _send_to_engine(self, request: pb.ModelInferRequest) -> None:
        """Send a stop or a probe to an engine itself, on a stream that ends with its answer.

        Triton 2.51 keeps a model for as long as a stream is open that carried a request to it: on the long stream, the
        memory of an engine that is unloaded or reloaded would never be given back.
        """
        self._to_engines.append(request)
        if len(self._to_engines) == 1:
            self._begin(self._serve_gathered())

    def _begin(self, serve: Coroutine[None, None, None]) -> None:
        """Serve a short stream beside the long one."""
        task = asyncio.create_task(serve)
        self._short.add(task)
        task.add_done_callback(self._short.discard)

    async def _serve_gathered(self) -> None:
        await asyncio.sleep(GATHER)
        requests, self._to_engines = self._to_engines, []
        await self._serve_engines(requests, ENGINE_PATIENCE)

    async def _serve_engines(self, requests: Sequence[pb.ModelInferRequest], patience: float) -> None:
        call = self._stub.ModelStreamInfer(timeout=patience)
        try:
            for request in requests:
                await call.write(request)
            await call.done_writing()
            while (response := await call.read()) is not grpc.aio.EOF:
                if response.infer_response.id:
                    self._dispatch(response)
                else:
                    # An error that names no request, for example of an engine that is gone: of none on the long stream.
                    self._note_error(response.error_message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # Stops are repeated by whoever sent them.
            logger.debug("a stream to the engines broke: %s", error)
        finally:
            call.cancel()
            for request in requests:
                probe = self._probes.get(request.id)
                if probe is not None and not probe.done():
                    probe.set_exception(RequestError("The engine did not answer", kind="unavailable"))

    def _break(self) -> None:
        """Fail all requests in progress. The next stream stops them, in case Triton is still the same."""
        self._open.clear()
        self._changed(False)
        self._outgoing = asyncio.Queue()
        receivers, self._receivers = self._receivers, {}
        lost = RequestError("The connection to Triton was lost", kind="unavailable")
        for request_id, receiver in receivers.items():
            receiver.queue.fail(lost.again())
            self._cancellations.add(request_id, receiver.target.engines)
        for probe in self._probes.values():
            if not probe.done():
                probe.set_exception(lost)
