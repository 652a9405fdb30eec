# SPDX-License-Identifier: Apache-2.0
"""Send made-up requests to Triton's models over gRPC: wrong types, shapes, sizes and values, missing and odd inputs.

They are written as protobuf, because tritonclient would refuse most of them before they are sent.
"""

import asyncio
import math
import random
import re
import struct
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as pb_grpc

from common.errors import RequestError
from frontend.triton.tensors import add_parameters
from tests.soak.attack import HANG_S
from tests.soak.tally import Tally

_FORMATS = {"INT32": "i", "INT64": "q", "UINT64": "Q", "FP32": "f", "FP16": "e", "BOOL": "?", "UINT8": "B"}
_NUMBERS = (0, 1, 2, 3, 5, 20, 21, 128, 129, 1000, 151_645, 151_935, 151_936, 2**31 - 1, -1, -2, -(2**31))
_FRACTIONS = (0.0, -0.0, 0.5, 1.0, 2.0, -1.0, 1e-45, 1e-6, 3.4e38, float("nan"), float("inf"), float("-inf"))
_TEXTS = (
    *(
        b"",
        b"Hi",
        b"a\0b",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        "\U0001f642".encode(),
        b"x" * 5000,
        b"{",
        b"[]",
        b"{}",
        b"null",
    ),
    *(b'{"messages": []}', b'{"messages": [{"role": "user", "content": "Hi"}]}', b'{"messages": [{"role": 1}]}'),
    *(b'{"messages": [{"role": "user", "content": "Hi"}], "tools": 1}', b'[{"role": "user", "content": "Hi"}]'),
    *(
        b"json_schema",
        b"regex",
        b"ebnf_grammar",
        b"json",
        b"structural_tag",
        b'{"type": "object"}',
        b"[a-z]+",
        b"(",
        b"root ::=",
    ),
    *(b"\x89PNG\r\n\x1a\n" + b"\0" * 20, b"GIF89a", b"\xff\xd8\xff\xe0", b"[" * 3000, b'{"a":' * 300),
)
_PARAMETERS: Sequence[tuple[str, Any]] = (
    *(("error_output", True), ("error_output", 1), ("owner", "x"), ("owner", 7), ("chat", True), ("tools", True)),
    *(
        ("n", 0),
        ("n", "x"),
        ("priority", 3),
        ("timeout", 1000),
        ("timeout", -5),
        ("sequence_id", 3),
        ("top_logprobs", 21),
    ),
    *(("top_logprobs", -1), ("prompt_logprobs", 2**40), ("prompt_logprobs", 5), ("logprobs", True), ("min_p", "nan")),
    *(
        ("min_p", "0.5"),
        ("min_p", 3),
        ("return_token_strs", True),
        ("return_token_ids", True),
        ("add_special_tokens", 2),
    ),
    *(
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", 3),
        ("truncation_side", "up"),
        ("thinking_token_budget", -2),
    ),
    *(("stop", "x"), ("stop", "[" * 2000), ("stop_strings", "["), ("tool_parser", "x"), ("reasoning_open", "x")),
    *(
        ("binary_data_output", True),
        ("x" * 3000, "y"),
        ("", ""),
        ("load_adapter", "x"),
    ),
    *(("allowed_token_ids", "[1]"), ("allowed_token_ids", "["), ("cache_salt", "\U0001f642"), ("traceparent", "x")),
)
_ODD_SHAPES = ([], [0], [1], [1, 0], [0, 1], [2, 1], [1, 1, 1], [1, -1], [-1], [1, 2**31], [2**40, 2**40], [1, 7])


class TensorMaker:
    """Makes requests to a Triton's models. configs: of the models, by name."""

    def __init__(self, configs: dict[str, Any], seed: str) -> None:
        self._random = random.Random(seed)  # nosec B311 # no secret is drawn
        self._configs = configs
        # The step after the first get most of what the ensemble passes on; clients call the ensemble.
        self._weights = [8 if name == "ensemble" else 1 for name in configs]
        self._count = 0

    def make(self) -> pb.ModelInferRequest:
        """The next request."""
        draw = self._random
        name = draw.choices(list(self._configs), self._weights)[0]
        self._count += 1
        request = pb.ModelInferRequest(model_name=name, id=f"attack-{draw.getrandbits(64):x}-{self._count}")
        wrongness = draw.choice((0.0, 0.0, 0.05, 0.3))
        declared = {one.name: one for one in self._configs[name].input}
        names = [one.name for one in declared.values() if not one.optional]
        if name in ("ensemble", "preprocessing"):
            ids = "input_ids" if name == "ensemble" else "prompt_ids"
            names += [draw.choice(("text_input", "text_input", "messages", ids)), "max_tokens"]
        names += draw.sample(list(declared), min(len(declared), draw.choice((0, 1, 2, 3, 8))))
        for one in dict.fromkeys(names):
            if draw.random() >= wrongness:
                self._add(request, declared[one], wrongness)
        if draw.random() < wrongness:
            self._spoil(request)
        add_parameters(request, dict(draw.sample(_PARAMETERS, draw.choice((0, 0, 1, 2, 4)))))
        # A stop, and a request for no tokens, end without a response, which Triton tells only if asked.
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        # Without it a failing step of an ensemble leaks the request in Triton 2.51 (engines/reply.py).
        if name == "ensemble":
            request.parameters["error_output"].bool_param = True
        return request

    def _add(self, request: Any, declared: Any, wrongness: float) -> None:
        draw = self._random
        datatype = pb_datatype(declared.data_type)
        if draw.random() < wrongness:
            datatype = draw.choice(("BYTES", *_FORMATS, "X", ""))
        count = 1 if list(declared.dims) == [1] else draw.choice((0, 1, 2, 3, 17, 1025))
        if declared.name in ("max_tokens", "request_output_len"):
            raw = struct.pack("<i", draw.choice((1, 2, 3, 8, 0, -1, 2**31 - 1) if wrongness else (1, 3, 8)))
        elif declared.name == "num_return_sequences":
            raw = struct.pack("<i", draw.choice((1, 2, 3, 0, -1, 129)))
        else:
            raw = self._values(datatype, count)
        shape = [1, *(count if size == -1 else size for size in declared.dims)]
        if draw.random() < wrongness:
            shape = list(draw.choice(_ODD_SHAPES))
        if draw.random() < wrongness:
            raw = draw.choice((b"", raw[:-1], raw + b"\0", raw * 2, b"\xff" * len(raw), b"\xff\xff\xff\xff"))
        request.inputs.add(name=declared.name, datatype=datatype, shape=shape)
        request.raw_input_contents.append(raw)

    def _values(self, datatype: str, count: int) -> bytes:
        draw = self._random
        if datatype == "BYTES":
            texts = (draw.choice((*_TEXTS, b"Hi", b"Hi", b"Hi")) for _ in range(count))
            return b"".join(struct.pack("<I", len(text)) + text for text in texts)
        code = _FORMATS.get(datatype, "B")
        if datatype in ("FP32", "FP16"):
            numbers = [
                one if abs(one) < 6e4 or datatype == "FP32" else 1.0 for one in draw.choices(_FRACTIONS, k=count)
            ]
            return struct.pack(f"<{count}{code}", *numbers)
        if datatype == "BOOL":
            return bytes(draw.choices((0, 1, 1, 255), k=count))
        size = struct.calcsize(code)
        return b"".join((one % 2 ** (8 * size)).to_bytes(size, "little") for one in draw.choices(_NUMBERS, k=count))

    def _spoil(self, request: Any) -> None:
        draw = self._random
        way = draw.randrange(9)
        if way == 0 and request.inputs:
            request.inputs.append(request.inputs[0])
        elif way == 1 and request.raw_input_contents:
            del request.raw_input_contents[0]
        elif way == 2:
            request.inputs.add(name="nothing", datatype="INT32", shape=[1, 1])
            request.raw_input_contents.append(b"\0" * 4)
        elif way == 3:
            request.model_version = draw.choice(("99", "x", "-1", "1"))
        elif way == 4:
            request.id = draw.choice(("", "x" * 5000, "\U0001f642"))
        elif way == 5:
            for one in draw.choices(("text_output", "nothing", "output_ids", "error", ""), k=3):
                request.outputs.add(name=one)
        elif way == 6 and request.inputs:
            del request.raw_input_contents[:]
            request.inputs[0].contents.int_contents.extend([1, 2])
        elif way == 7 and request.inputs:
            request.inputs[0].parameters["shared_memory_region"].string_param = "nothing"
            request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 2**40
        elif way == 8:
            request.model_name = draw.choice(("nothing", "", "x" * 1000, "../ensemble"))


def pb_datatype(number: int) -> str:
    """The name of a config's data type in requests."""
    from tritonclient.grpc import model_config_pb2

    name = model_config_pb2.DataType.Name(number).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


async def attack_triton(
    address: str,
    models: Sequence[str],
    count: int,
    seed: str,
    *,
    concurrency: int = 16,
    seconds: float = math.inf,
    hang_s: float = HANG_S,
    leaving: float = 0.0,
) -> Tally:
    """Send so many made-up requests to these models, for so many seconds at most.

    leaving: the share of clients that do not wait for the end of their answer. Returns what came of the requests, by
    model and kind of error.
    """
    until = time.monotonic() + seconds
    tally, left = Tally(), iter(range(count))
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        stub = pb_grpc.GRPCInferenceServiceStub(channel)
        configs = {name: (await stub.ModelConfig(pb.ModelConfigRequest(name=name))).config for name in models}
        maker = TensorMaker(configs, seed)
        draw = random.Random(f"{seed}/leaving")  # nosec B311 # no secret is drawn

        async def client() -> None:
            while time.monotonic() < until and next(left, None) is not None:
                request = maker.make()
                try:
                    async with asyncio.timeout(hang_s):
                        leaves = draw.random() < leaving
                        ends = await (_leave(address, stub, request, draw) if leaves else _ask(stub, request))
                except TimeoutError:
                    ends = ["hang"]
                tally.count(request.model_name if request.model_name in models else "another name", _kind(ends[-1]))
                for end in ends:
                    if end == "hang" or _faulty(end):
                        tally.findings.setdefault(f"{request.model_name}: {end}", repr(str(request)[:4000]))

        await asyncio.gather(*[client() for _ in range(concurrency)])
    return tally


async def _leave(address: str, stub: Any, request: pb.ModelInferRequest, draw: random.Random) -> list[str]:
    """Send one request, and cancel its stream or close its connection, at its first response or after up to 50 ms."""
    if draw.random() < 0.3:
        await _ask(stub, request, whole=False)
        return ["left"]
    seconds = draw.choice((0.0, 0.001, 0.005, 0.05)) * draw.random()
    if draw.random() < 0.5:
        await _cancelled(_ask(stub, request), seconds)
        return ["left"]
    # Channels of one address share a connection unless they are told not to.
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        await channel.channel_ready()
        asking = asyncio.create_task(_ask(pb_grpc.GRPCInferenceServiceStub(channel), request))
        await asyncio.wait([asking], timeout=seconds)
        await channel.close()
        await _cancelled(asking, 0.0)
    return ["left"]


async def _cancelled(asking: Coroutine[Any, Any, list[str]] | asyncio.Task[list[str]], seconds: float) -> None:
    task = asyncio.ensure_future(asking)
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _ask(stub: Any, request: pb.ModelInferRequest, *, whole: bool = True) -> list[str]:
    """Send one request; returns what its answer ended with: "ok", or the kind and the words of each error."""
    asked = asyncio.Event()

    async def requests() -> Any:
        yield request
        await asked.wait()

    ends: list[str] = []
    try:
        call = stub.ModelStreamInfer(requests())
        # Read to the end of the stream: a client that cancels it at the moment of the answer may leave the request in Triton.
        async for response in call:
            if not whole:
                call.cancel()
                break
            if response.error_message:
                ends.append(_words(response.error_message))
                asked.set()
                continue
            ends += _failures(response.infer_response)
            if response.infer_response.parameters["triton_final_response"].bool_param:
                asked.set()
    except grpc.aio.AioRpcError as error:
        ends.append(f"rpc {error.code().name}: {_plain(error.details() or '')}")
    finally:
        asked.set()
    return ends or ["ok"]


def _failures(response: Any) -> Iterator[str]:
    for index, output in enumerate(response.outputs):
        if output.name == "error":
            yield _words(response.raw_output_contents[index][4:].decode(errors="replace"))


def _words(text: str) -> str:
    known = RequestError.decode(text)
    return f"triton: {_plain(text)}" if known is None else f"{known.kind}: {_plain(known.message)}"


def _kind(end: str) -> str:
    """What an answer ended with, without the words of the error."""
    return end.split(":", 1)[0]


def _plain(text: str) -> str:
    """An error's text without what differs from request to request."""
    return re.sub(r"[0-9]+", "0", re.sub(r"'[^']*'|\"[^\"]*\"|attack-\S+", "'..'", text))[:200]


def _faulty(end: str) -> bool:
    """Whether an answer shows a fault of the models: something that they did not foresee, or the end of a process."""
    return end.startswith(("internal", "rpc", "unavailable")) or bool(
        re.search(r"Traceback|[Ss]tub process|Error:|Exception|unhealthy|not healthy", end)
    )
