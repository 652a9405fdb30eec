# SPDX-License-Identifier: Apache-2.0
"""A fake Triton that plays a test's script: the gRPC interface of our models without models.

It has the five models of one model alone, or those of the served models in `served`.

A script is an async generator: it gets the `Call` of one ensemble request and yields what Triton would answer,
made with `reply` or `failure`. A model of the kind `embedding` embeds a text as its length and the code of its first
character, and scores a pair by the length of its second text. The fake records every request, and every id that was stopped.
"""

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from common.answer_delta import OUTPUTS
from common.model_names import EMBEDDING, STEPS, owner, role
from common.response_batch import ANSWERS, GROUP, AnswerRow, decode_rows, encode_rows
from frontend.triton.tensors import decode_delta, is_final

CONFIG = Path(__file__).parents[2] / "model_repository" / "ensemble" / "config.pbtxt"
# The ensemble's own: its config lists the inputs before the outputs.
INPUTS = frozenset(re.findall(r'{ name: "(\w+)"', CONFIG.read_text(encoding="utf-8").partition("output [")[0]))
_UNPACK = {"INT32": "i", "UINT64": "Q", "FP32": "f", "BOOL": "?"}
_INTS = ("completion_tokens", "reasoning_tokens", "num_input_tokens", "num_cached_tokens")


@dataclass
class Call:
    """One request as the ensemble gets it. stopped: set once a stop for its id has been received.

    group: its response group, which is not among the parameters.
    """

    id: str
    model: str
    inputs: dict[str, list[Any]]
    parameters: dict[str, Any]
    shapes: dict[str, list[int]]
    group: str | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def messages(self) -> dict[str, Any]:
        return json.loads(self.inputs["messages"][0])

    @classmethod
    def read(cls, request: pb.ModelInferRequest) -> "Call":
        inputs = {
            tensor.name: _unpack(tensor.datatype, raw)
            for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()
        }
        shapes = {tensor.name: list(tensor.shape) for tensor in request.inputs}
        group = parameters.pop(GROUP, None)
        return cls(request.id, request.model_name, inputs, parameters, shapes, group)


Script = Callable[[Call], AsyncIterator[pb.ModelStreamInferResponse]]


def reply(text: str = "", *, final: bool = False, model: str = "ensemble", **outputs: Any) -> Any:
    """A response of the ensemble: `text_output` always, other outputs by name, JSON outputs as Python values."""
    response = pb.ModelInferResponse(model_name=model)
    for name, value in {"text_output": text, **outputs}.items():
        if name in _INTS:
            _add(response, name, "INT32", struct.pack("<i", value))
        else:
            data = (value if isinstance(value, str) else json.dumps(value)).encode()
            _add(response, name, "BYTES", struct.pack("<I", len(data)) + data)
    response.parameters["triton_final_response"].bool_param = final
    return pb.ModelStreamInferResponse(infer_response=response)


def finish(reason: str = "stop", *, completion: int = 3, prompt: int = 5, text: str = "", **outputs: Any) -> Any:
    """The last response of an answer."""
    counts = {"completion_tokens": completion, "reasoning_tokens": 0, "num_input_tokens": prompt}
    return reply(text, final=True, finish_reason=reason, **(counts | outputs))


def failure(text: str) -> Any:
    return pb.ModelStreamInferResponse(error_message=text)


def answer_of(*texts: str) -> Script:
    """A script that streams these texts and stops."""

    async def script(call: Call) -> AsyncIterator[Any]:
        for text in texts:
            yield reply(text)
        yield finish(completion=len(texts))

    return script


async def silence(call: Call) -> AsyncIterator[Any]:
    """A script that answers nothing until it is stopped."""
    await call.stopped.wait()
    yield finish("cancelled")


@dataclass
class Served:
    """One of several models in the fake. steps: what the names of its steps begin with. info: its `served_model`.

    A model of embeddings without `steps` is no ensemble.
    """

    steps: str
    info: dict[str, Any] = field(default_factory=dict)
    state: str = "READY"
    reason: str = ""

    @property
    def embeds(self) -> bool:
        """Whether it is a model of embeddings."""
        return self.info.get("kind") == "embedding"

    @property
    def step_names(self) -> list[str]:
        """The Triton models that it is made of, besides its own."""
        roles = (EMBEDDING,) if self.embeds else STEPS
        return [self.steps + one for one in roles] if self.steps or not self.embeds else []


class FakeTriton(pb_grpc.GRPCInferenceServiceServicer):
    """Scripted servicer. Attributes are the test's to set before or between requests."""

    def __init__(self) -> None:
        self.script: Script = answer_of("Hello", " world")
        self.inputs = set(INPUTS)
        self.engine_backend = "python"
        # Whether answers of requests with a response group come in batches, each as a response to the group's oldest.
        self.batches = True
        # What the engine tells of itself; None for an engine that lacks the output.
        self.build_info: dict[str, Any] | None = {"engine": "vllm", "engine_version": "0.32.0"}
        # The same for its statistics, and the seconds that it takes to tell them.
        self.statistics: dict[str, Any] | None = {"running": 0, "waiting": 0}
        self.statistics_delay_s = 0.0
        # Those of several engines, by their names.
        self.statistics_of: dict[str, dict[str, Any]] = {}
        # What it tells of its adapters, as objects with name and id; None for an engine that lacks the output. A change
        # is refused with `adapter_error` if that is set.
        self.adapters: list[dict[str, Any]] | None = None
        self.adapter_error: str | None = None
        self.adapter_changes: list[dict[str, Any]] = []
        # The ensembles. A step is loaded if a ready ensemble or `old_steps` names what its name begins with.
        self.served = {"ensemble": Served("")}
        self.old_steps: set[str] = set()
        # What Triton answers instead of its index.
        self.refuses_index: tuple[grpc.StatusCode, str] | None = None
        self.key = "the-key"  # with which it does not refuse
        # Models that are not ours.
        self.foreign: set[str] = set()
        self.unready: set[str] = set()
        # An embedding model's error, as Triton's text, or what it waits for; and the ids of requests cancelled meanwhile.
        self.pooling_error: str | None = None
        self.pooling_gate: asyncio.Event | None = None
        self.cancelled: list[str] = []
        # What `preprocessing` waits for when it is asked for the ids of a text.
        self.tokenizing_gate: asyncio.Event | None = None
        # A model whose process is gone: Triton calls it ready, and its requests fail.
        self.lost: str | None = None
        self.calls: list[Call] = []
        self.stops: list[str] = []
        # What `postprocessing` was asked to forget: its name, the client, and the time before which it began.
        self.forgotten: list[tuple[str, str, str]] = []
        # The engine that each stop was sent to.
        self.stopped_in: list[str] = []
        # Of each stream that was opened.
        self.metadata: list[dict[str, Any]] = []
        # The models that each stream has carried requests of, for as long as it is open.
        self.open_streams: list[list[str]] = []
        # A request stops at its nth stop; earlier ones are ignored, as if the engine did not know the id yet.
        self.stops_needed = 1
        self.port = 0
        self._server: grpc.aio.Server | None = None
        self._running: dict[str, Call] = {}

    async def start(self, port: int = 0) -> None:
        # Kept for the whole process: gRPC would join its polling thread with the last server or channel of a test, which
        # hangs or crashes now and then if an operation is still pending.
        grpc.aio.init_grpc_aio()
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        await self._server.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)

    async def restart(self) -> None:
        """Break every stream and start again at the same port."""
        await self.stop()
        await self.start(self.port)

    # The methods of Triton's gRPC service.

    async def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(name="triton", version="2.51.0")

    async def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name not in self.unready)

    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        if self.refuses_index is not None and self.key not in dict(context.invocation_metadata()).values():
            await context.abort(*self.refuses_index)
        index = pb.RepositoryIndexResponse()
        for name, served in self.served.items():
            for one in (name, *served.step_names) if served.state else ():
                index.models.add(name=one, version="1", state=served.state, reason=served.reason)
        return index

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        if request.name in self.unready:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"Request for unknown model: '{request.name}'")
        config = pb.ModelConfigResponse()
        config.config.name = request.name
        config.config.backend = self.engine_backend
        served = self.served.get(request.name)
        for name in sorted(self.inputs) if served is not None else ():
            config.config.input.add(name=name)
        if served is not None and request.name not in self.foreign:
            config.config.parameters["served_model"].string_value = json.dumps(served.info)
            for step in served.step_names:
                config.config.ensemble_scheduling.step.add(model_name=step)
        if served is not None and self.batches:
            config.config.output.add(name=ANSWERS)
        if role(request.name) == "tensorrt_llm" and self.build_info is not None:
            config.config.output.add(name="build_info")
        if (self._pools(request.name) or role(request.name) == "tensorrt_llm") and self.statistics is not None:
            config.config.output.add(name="statistics")
        if role(request.name) == "tensorrt_llm" and self.adapters is not None:
            config.config.output.add(name="adapters")
        return config

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        """`preprocessing` makes 2 and an id of each code point, `postprocessing` back."""
        call = Call.read(request)
        if call.model in (self.lost, *self.unready):
            await context.abort(grpc.StatusCode.INTERNAL, f"Stub process '{call.model}_0_0' is not healthy.")
        if not call.id.startswith("probe-"):
            self.calls.append(call)
        response = pb.ModelInferResponse(model_name=call.model, id=call.id)
        if self._pools(call.model):
            await self._pool(call, request, response, context)
            return response
        if role(call.model) == "vit":
            return response
        if [output.name for output in request.outputs] == ["adapters"]:
            data = json.dumps(self.adapters).encode()
            _add(response, "adapters", "BYTES", struct.pack("<I", len(data)) + data)
        elif role(call.model) == "preprocessing":
            await self._pass(self.tokenizing_gate, call)
            text = (call.inputs.get("text_input") or [call.inputs.get("messages", [b""])[0]])[0].decode()
            if "<<refuse>>" in text:
                await context.abort(grpc.StatusCode.INTERNAL, f"in model '{call.model}': " + REFUSAL)
            ids = [2, *map(ord, text)]
            _add(response, "input_ids", "INT32", struct.pack(f"<{len(ids)}i", *ids))
            if call.parameters.get("return_token_strs"):
                texts = [b"<bos>", *(char.encode() for char in text)]
                data = b"".join(struct.pack("<I", len(one)) + one for one in texts)
                _add(response, "token_strs", "BYTES", data)
        else:
            data = "".join(chr(one) if one < 0xD800 else "?" for one in call.inputs["output_ids"]).encode()
            _add(response, "text_output", "BYTES", struct.pack("<I", len(data)) + data)
        return response

    async def _pass(self, gate: asyncio.Event | None, call: Call) -> None:
        """Wait at a gate, and note if the request is cancelled meanwhile."""
        try:
            if gate is not None:
                await gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(call.id)
            raise

    async def _pool(self, call: Call, request: Any, response: Any, context: Any) -> None:
        asked = [output.name for output in request.outputs]
        if asked in (["build_info"], ["statistics"]):
            told = self.build_info if asked == ["build_info"] else self.statistics_of.get(call.model, self.statistics)
            data = json.dumps(told).encode()
            _add(response, asked[0], "BYTES", struct.pack("<I", len(data)) + data)
            return
        await self._pass(self.pooling_gate, call)
        if self.pooling_error is not None:
            await context.abort(grpc.StatusCode.INTERNAL, self.pooling_error)
        prompts = [text.decode() for text in call.inputs.get("text_input", [])]
        ids = iter(call.inputs.get("input_ids", []))
        prompts += [
            "".join(chr(next(ids) % 0x110000) for _ in range(size)) for size in call.inputs.get("input_lengths", [])
        ]
        pairs = call.inputs.get("text_pair", [])
        rows = [[float(len(pair))] for pair in pairs] or [[float(len(one)), float(ord(one[0]))] for one in prompts]
        flat = [number for row in rows for number in row]
        name, shape = ("score", [len(rows)]) if pairs else ("embedding", [len(rows), 2])
        _add(response, name, "FP32", struct.pack(f"<{len(flat)}f", *flat), shape)
        _add(response, "num_input_tokens", "INT32", struct.pack(f"<{len(rows)}i", *([3] * len(rows))), [len(rows)])

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata())
        outgoing: asyncio.Queue[Any] = asyncio.Queue()
        carried: list[str] = []
        self.open_streams.append(carried)
        tasks = [asyncio.create_task(self._read(requests, outgoing, carried, metadata))]
        try:
            while (response := await outgoing.get()) is not None:
                yield response
        finally:
            self.open_streams = [one for one in self.open_streams if one is not carried]
            for task in tasks:
                task.cancel()

    async def _read(
        self, requests: Any, outgoing: "asyncio.Queue[Any]", carried: list[str], metadata: dict[str, Any]
    ) -> None:
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                call = Call.read(request)
                carried.append(call.model)
                if call.model == self.lost:
                    lost = failure(f"Stub process '{call.model}_0_0' is not healthy.")
                    outgoing.put_nowait(_named(call.id, lost))
                elif not self._loaded(call.model):
                    unknown = failure(f"Request for unknown model: '{call.model}' is not found")
                    outgoing.put_nowait(_named(call.id, unknown))
                elif role(call.model) == "postprocessing":
                    self.forgotten.append((call.model, call.parameters["owner"], call.parameters["forget_before"]))
                    outgoing.put_nowait(_named(call.id, reply(model=call.model, error="forgotten")))
                elif role(call.model) == "tensorrt_llm":
                    told = {output.name: self._told(output.name, call) for output in request.outputs}
                    if "statistics" in told:
                        await asyncio.sleep(self.statistics_delay_s)
                        told["statistics"] = self.statistics_of.get(call.model, self.statistics)
                    if not told:
                        self._stop(call.id, call.model)
                    refused = self.adapter_error is not None and "adapters" in told
                    answer = failure(self.adapter_error) if refused else reply(model=call.model, **told)
                    outgoing.put_nowait(_named(call.id, answer))
                else:
                    if not any(one is metadata for one in self.metadata):
                        self.metadata.append(metadata)
                    self.calls.append(call)
                    self._running[call.id] = call
                    group.create_task(self._play(call, outgoing))
        # The client has closed its side and has all its answers.
        outgoing.put_nowait(None)

    async def _play(self, call: Call, outgoing: "asyncio.Queue[Any]") -> None:
        number = 0
        async for response in self.script(call):
            if call.group is None or not _fits_a_batch(response):
                outgoing.put_nowait(_named(call.id, response))
                continue
            oldest = next(one.id for one in self._running.values() if one.group == call.group)
            carrier = call.id if is_final(response.infer_response) else oldest
            outgoing.put_nowait(_named(carrier, batch(call.id, number, response)))
            number += 1
        self._running.pop(call.id, None)

    def _told(self, output: str, call: Call) -> Any:
        """What the engine tells of itself, after a change of its adapters that the parameters ask for."""
        if output == "build_info":
            return self.build_info
        changed = {name: value for name, value in call.parameters.items() if name.endswith("_adapter")}
        if changed and self.adapter_error is None:
            self.adapter_changes.append(call.parameters)
            name = changed.get("load_adapter")
            kept = [one for one in self.adapters if one["name"] not in changed.values()]
            self.adapters = kept + ([{"name": name, "id": 100 + len(self.adapter_changes)}] if name else [])
        return self.adapters

    def _pools(self, model: str) -> bool:
        """Whether it is a model of embeddings, or the step of one."""
        served = self.served.get(model) or self.served.get(owner(model) or "")
        return served is not None and served.embeds

    def _loaded(self, model: str) -> bool:
        if model in self.served:
            return self.served[model].state == "READY"
        steps = model.removesuffix(role(model))
        return steps in self.old_steps or any(
            one.steps == steps and one.state == "READY" for one in self.served.values()
        )

    def _stop(self, request_id: str, engine: str) -> None:
        self.stops.append(request_id)
        self.stopped_in.append(engine)
        if self.stops.count(request_id) >= self.stops_needed and request_id in self._running:
            self._running[request_id].stopped.set()


REFUSAL = (
    '<<request-error {"kind": "context_length", "param": "messages", "message": "The prompt has 9000 tokens"}>>, quoted'
)


def _fits_a_batch(response: Any) -> bool:
    """Whether an engine would send this in a batch: text and what ends an answer, but no log-probabilities."""
    names = {output.name for output in response.infer_response.outputs}
    return bool(names) and names.isdisjoint(("error", "logprobs", "prompt_logprobs", "prompt_token_ids", ANSWERS))


def batch(request_id: str, number: int, response: Any) -> Any:
    """A response as a batch of one row, the one of this number of the request. Each row has one token."""
    delta = decode_delta(response.infer_response)
    more = {name: getattr(delta, name) for name in OUTPUTS if name != "text"}
    told = {name: one for name, one in more.items() if one not in (None, "", ())}
    row = AnswerRow(request_id, number, delta.text, told, number + 1)
    made = batch_of(row)
    made.infer_response.parameters["triton_final_response"].bool_param = delta.final
    return made


def batch_of(*rows: AnswerRow) -> Any:
    """A response with these rows."""
    made = pb.ModelInferResponse(model_name="ensemble")
    _add(made, ANSWERS, "UINT8", encode_rows(rows))
    return pb.ModelStreamInferResponse(infer_response=made)


def together(*batches: Any) -> Any:
    """One response with the rows of all these."""
    rows = [row for one in batches for row in decode_rows(one.infer_response.raw_output_contents[0])]
    return batch_of(*(AnswerRow(*row) for row in rows))


def _named(request_id: str, response: Any) -> Any:
    response.infer_response.id = request_id
    return response


def _add(response: Any, name: str, datatype: str, raw: bytes, shape: Sequence[int] = (1, 1)) -> None:
    response.outputs.add(name=name, datatype=datatype, shape=shape)
    response.raw_output_contents.append(raw)


def _unpack(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        size = struct.calcsize(_UNPACK[datatype])
        return list(struct.unpack(f"<{len(raw) // size}{_UNPACK[datatype]}", raw))
    values = []
    while raw:
        (length,) = struct.unpack_from("<I", raw)
        values.append(raw[4 : 4 + length])
        raw = raw[4 + length :]
    return values
