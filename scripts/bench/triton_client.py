# SPDX-License-Identifier: Apache-2.0
"""Clients of Triton's streaming gRPC API: the models `ensemble` (messages in, text out) and `tensorrt_llm` (ids).

Each stream of the load has its own gRPC stream, as over HTTP it has its own connection.
"""

import itertools
import os
import struct
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import grpc
import orjson
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from scripts.bench.questions import Answer, Failure, Question, Sample, check_result

# As in tritonclient: no limit on the size of messages.
_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
_FORMATS = {"INT32": "i", "FP32": "f", "BOOL": "?"}


class TritonClient:
    """Sends requests to one model, over one channel per process and one gRPC stream per concurrent request."""

    model: str

    def __init__(self, address: str) -> None:
        """Create a client. address: host:port of Triton's gRPC endpoint."""
        self._address = address
        self._ids = itertools.count()
        self._idle: list[Any] = []

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, options=_OPTIONS)
        self._stub = pb_grpc.GRPCInferenceServiceStub(self._channel)
        return self

    async def __aexit__(self, *error: object) -> None:
        for call in self._idle:
            await call.done_writing()
        await self._channel.close()

    def prepare(self, question: Question) -> pb.ModelInferRequest:
        """Build the protobuf of a request, outside the measured time."""
        message = pb.ModelInferRequest(model_name=self.model, id=f"{os.getpid()}-{next(self._ids)}")
        self._fill(message, question)
        return message

    async def ask(self, question: Question, prepared: pb.ModelInferRequest) -> Answer:
        """Send a request and read its responses to the last."""
        sent = time.monotonic()
        reader = self._reader(question)
        call = self._idle.pop() if self._idle else self._stub.ModelStreamInfer()
        try:
            await call.write(prepared)
            while not reader.done:
                message = await call.read()
                if message is grpc.aio.EOF:
                    return Failure("Triton closed the stream")
                if message.error_message:
                    return Failure(message.error_message[:300])
                # The final response of the previous request may arrive late and without a tensor.
                if message.infer_response.id == prepared.id:
                    reader.feed(message.infer_response, time.monotonic())
        except grpc.aio.AioRpcError as error:
            return Failure(f"{error.code().name}: {error.details()}")
        self._idle.append(call)
        return reader.answer(question, sent)

    @abstractmethod
    def _fill(self, message: pb.ModelInferRequest, question: Question) -> None: ...

    @abstractmethod
    def _reader(self, question: Question) -> "Reader": ...


class Reader:
    """Reads the responses of one request."""

    def __init__(self, prompt_tokens: int = 0) -> None:
        self.chunks: list[float] = []
        self.ended = 0.0
        self.prompt_tokens = prompt_tokens
        self.output_tokens = 0
        self.error: str | None = None
        self.done = False

    def answer(self, question: Question, sent: float) -> Answer:
        """The result, once `done`."""
        if self.error is not None:
            return Failure(self.error[:300])
        chunks = tuple(self.chunks)
        return check_result(question, Sample(sent, chunks, self.ended, self.prompt_tokens, self.output_tokens))

    def feed(self, response: pb.ModelInferResponse, now: float) -> None:
        """Process one response that arrived at `now`."""
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
            self.read(output, raw, now)
        flag = response.parameters.get("triton_final_response")
        if self.done or (flag is not None and flag.bool_param):
            self.done, self.ended = True, now

    @abstractmethod
    def read(self, output: Any, raw: bytes, now: float) -> None:
        """Read one tensor; sets `done` if only empty responses can follow."""


class EngineReader(Reader):
    """Reads ids from `tensorrt_llm`."""

    def read(self, output: Any, raw: bytes, now: float) -> None:
        if output.name == "output_ids" and raw:
            self.chunks.append(now)
            self.output_tokens += len(raw) // 4
        elif output.name == "finish_reason":
            self.done = True


class EngineClient(TritonClient):
    """Sends ids to `tensorrt_llm`, the language model."""

    model = "tensorrt_llm"

    def _fill(self, message: pb.ModelInferRequest, question: Question) -> None:
        ids = question.input_ids
        _add(message, "input_ids", "INT32", ids)
        _add(message, "input_lengths", "INT32", [len(ids)])
        _add(message, "request_output_len", "INT32", [question.output_tokens])
        _add(message, "end_id", "INT32", [-1])
        _add(message, "temperature", "FP32", [question.temperature])
        _add(message, "streaming", "BOOL", [True])

    def _reader(self, question: Question) -> Reader:
        # This model does not report the number of prompt tokens.
        return EngineReader(len(question.input_ids))


class EnsembleReader(Reader):
    """Reads text and token counts from `ensemble`."""

    def read(self, output: Any, raw: bytes, now: float) -> None:
        # A string is serialised as its length (uint32) and its UTF-8 bytes.
        if output.name in ("text_output", "reasoning_output") and len(raw) > 4:
            self.chunks.append(now)
        elif output.name == "num_input_tokens":
            self.prompt_tokens = _integer(raw)
        elif output.name == "completion_tokens":
            self.output_tokens = _integer(raw)
        elif output.name == "finish_reason" and raw:
            self.done = True
        elif output.name == "error" and raw:
            self.error, self.done = raw[4:].decode(errors="replace"), True


class EnsembleClient(TritonClient):
    """Sends messages to `ensemble`, which is all of Triton's part."""

    model = "ensemble"

    def _fill(self, message: pb.ModelInferRequest, question: Question) -> None:
        _add_strings(message, "messages", [orjson.dumps({"messages": question.messages})])
        if question.images:
            _add_strings(message, "images", question.images)
        _add(message, "max_tokens", "INT32", [question.output_tokens])
        _add(message, "end_id", "INT32", [-1])
        _add(message, "temperature", "FP32", [question.temperature])
        _add(message, "stream", "BOOL", [True])
        _add(message, "return_num_input_tokens", "BOOL", [True])
        # As the frontend does.
        message.parameters["chat"].bool_param = True
        message.parameters["error_output"].bool_param = True

    def _reader(self, question: Question) -> Reader:
        return EnsembleReader()


def _add(message: pb.ModelInferRequest, name: str, datatype: str, values: Sequence[Any]) -> None:
    message.inputs.add(name=name, datatype=datatype, shape=(1, len(values)))
    message.raw_input_contents.append(struct.pack(f"<{len(values)}{_FORMATS[datatype]}", *values))


def _add_strings(message: pb.ModelInferRequest, name: str, values: Sequence[bytes]) -> None:
    message.inputs.add(name=name, datatype="BYTES", shape=(1, len(values)))
    message.raw_input_contents.append(b"".join(struct.pack("<I", len(value)) + value for value in values))


def _integer(raw: bytes) -> int:
    return int.from_bytes(raw[:4], "little", signed=True)


CLIENTS: Mapping[str, type[TritonClient]] = {client.model: client for client in (EnsembleClient, EngineClient)}
