# SPDX-License-Identifier: Apache-2.0
"""The benchmark's clients: what they send and count, and that failed requests are reported as failed."""

import asyncio
import base64
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tritonclient.grpc import service_pb2 as pb

from scripts.bench.http_client import EventReader, HttpClient, body
from scripts.bench.load import Endpoint, run
from scripts.bench.questions import Failure, Question, Sample, Stream
from scripts.bench.triton_client import EngineClient, EngineReader, EnsembleClient
from tests.fakes.fake_triton import Call, FakeTriton, failure, finish, reply
from tests.fakes.openai_server import event, openai_server

ROOT = Path(__file__).parents[4]
IDS = (11, 12, 13, 14)


def question(text: str = "go", tokens: int = 3, ids: tuple[int, ...] = IDS, images: tuple[bytes, ...] = ()) -> Question:
    return Question(({"role": "user", "content": text},), ids, tokens, images)


async def ask(client: Any, *questions: Question) -> list[Any]:
    async with client:
        return [await client.ask(each, client.prepare(each)) for each in questions]


async def test_an_answer_over_http() -> None:
    async with openai_server() as server:
        (sample,) = await ask(HttpClient(server.url, "m"), question(tokens=3))
    assert isinstance(sample, Sample)
    assert (len(sample.chunks), sample.output_tokens, sample.prompt_tokens) == (3, 3, 4)
    assert sample.sent < sample.chunks[0] <= sample.chunks[-1] <= sample.ended
    (asked,) = server.bodies
    assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("m", 3, 0)
    assert asked["ignore_eos"] is asked["stream"] is asked["stream_options"]["include_usage"] is True


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ("refuse", "HTTP 503: come again"),
        ("break", "the stream ended without a finish_reason"),
        ("short", "2 tokens were written, not 3"),
        ("error", "the engine has stopped"),
    ],
)
async def test_a_failed_answer_over_http(manner: str, words: str) -> None:
    async with openai_server() as server:
        failed, sample = await ask(HttpClient(server.url, "m"), question(manner), question())
    assert isinstance(failed, Failure) and words in failed.reason
    assert isinstance(sample, Sample)


async def test_a_server_that_is_not_there() -> None:
    (failed,) = await ask(HttpClient("http://127.0.0.1:9", "m"), question())
    assert isinstance(failed, Failure) and "Connect" in failed.reason


def test_events_cut_anywhere_are_the_same() -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3}}\n\n'
    pieces = [
        event({"role": "assistant"}),
        event({"content": "a"}),
        event({"reasoning_content": "ü"}),
        event({}, "length"),
    ]
    whole = b"".join(pieces) + b": a comment\r\n\r\n" + usage + b"data: [DONE]\n\n"
    for cut in range(len(whole)):
        reader = EventReader()
        reader.feed(whole[:cut], 1.0)
        reader.feed(whole[cut:], 2.0)
        sample = reader.answer(question(), 0.0)
        assert isinstance(sample, Sample), cut
        # An event arrives with its last byte.
        ends = [len(b"".join(pieces[: index + 1])) - 1 for index in range(4)]
        assert sample.chunks == tuple(1.0 if cut >= end else 2.0 for end in ends[1:3])
        assert sample.ended == (1.0 if cut >= ends[3] else 2.0)


def test_pictures_go_as_data_urls_in_their_places() -> None:
    parts = [{"type": "image_url"}, {"type": "text", "text": "?"}, {"type": "image_url"}]
    png, jpeg = b"\x89PNG one", b"\xff\xd8two"
    made = body(Question(({"role": "user", "content": parts},), IDS, 5, (png, jpeg)), "m")
    first, text, second = made["messages"][0]["content"]
    assert text == {"type": "text", "text": "?"}
    assert first["image_url"]["url"] == "data:image/png;base64," + base64.b64encode(png).decode()
    assert second["image_url"]["url"] == "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


@pytest.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    fake = FakeTriton()
    await fake.start()
    yield fake
    await fake.stop()


async def test_an_answer_of_the_ensemble(triton: FakeTriton) -> None:
    async def script(call: Call) -> AsyncIterator[Any]:
        yield reply("one ")
        yield reply(reasoning_output="two ")
        yield reply("")
        yield finish("length", completion=3, prompt=4)

    triton.script = script
    client = EnsembleClient(f"127.0.0.1:{triton.port}")
    first, second = await ask(client, question(images=(b"pixels",)), question())
    for sample in (first, second):
        assert isinstance(sample, Sample), sample
        assert (len(sample.chunks), sample.output_tokens, sample.prompt_tokens) == (2, 3, 4)
        assert sample.sent < sample.chunks[0] <= sample.chunks[1] <= sample.ended
    asked = triton.calls[0]
    assert asked.messages == {"messages": [{"role": "user", "content": "go"}]}
    assert asked.inputs["images"] == [b"pixels"]
    assert [asked.inputs[name] for name in ("max_tokens", "end_id", "temperature", "stream")] == [
        [3],
        [-1],
        [0.0],
        [True],
    ]
    assert asked.parameters == {"chat": True, "error_output": True}
    # One gRPC stream serves the requests that follow each other.
    assert len(triton.metadata) == 1


@pytest.mark.parametrize(
    "response", [failure("no such tensor"), reply(error="no such tensor")], ids=["error", "output"]
)
async def test_a_failed_answer_of_the_ensemble(triton: FakeTriton, response: Any) -> None:
    async def script(call: Call) -> AsyncIterator[Any]:
        yield response

    triton.script = script
    (failed,) = await ask(EnsembleClient(f"127.0.0.1:{triton.port}"), question())
    assert isinstance(failed, Failure) and "no such tensor" in failed.reason


async def test_a_triton_that_goes_away() -> None:
    text = (
        "import asyncio, os\n"
        "from tests.fakes.fake_triton import FakeTriton, reply\n"
        "async def script(call):\n"
        "    yield reply('one ')\n"
        "    await asyncio.sleep(0.1)\n"
        "    os._exit(0)\n"
        "async def main():\n"
        "    triton = FakeTriton()\n"
        "    triton.script = script\n"
        "    await triton.start()\n"
        "    print(triton.port, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    # A process of its own: gRPC's server crashes the process now and then if it is stopped in the middle of a call.
    triton = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert triton.stdout is not None
        port = int(await asyncio.to_thread(triton.stdout.readline))
        (failed,) = await ask(EnsembleClient(f"127.0.0.1:{port}"), question())
        assert isinstance(failed, Failure) and failed.reason.startswith("UNAVAILABLE: ")
        assert await asyncio.to_thread(triton.wait, 30) == 0
    finally:
        triton.kill()
        triton.communicate()


def test_what_the_engine_is_asked() -> None:
    message = EngineClient("x:1").prepare(question(tokens=9))
    asked = Call.read(message)
    assert (asked.model, asked.inputs["input_ids"], asked.shapes["input_ids"]) == ("tensorrt_llm", list(IDS), [1, 4])
    names = ("input_lengths", "request_output_len", "end_id", "temperature", "streaming")
    assert [asked.inputs[name] for name in names] == [[4], [9], [-1], [0.0], [True]]


def ids_response(*ids: int, final: bool = False) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse()
    response.outputs.add(name="output_ids", datatype="INT32", shape=[1, 1, len(ids)])
    response.raw_output_contents.append(struct.pack(f"<{len(ids)}i", *ids))
    response.parameters["triton_final_response"].bool_param = final
    return response


def test_the_engines_ids_are_counted() -> None:
    reader = EngineReader(4)
    for time, ids in enumerate([(1,), (), (2, 3)]):
        reader.feed(ids_response(*ids, final=len(ids) == 2), float(time))
        assert reader.done is (len(ids) == 2)
    assert reader.answer(question(tokens=3), -1.0) == Sample(-1.0, (0.0, 2.0), 2.0, 4, 3)


async def test_a_load_of_several_processes() -> None:
    async with openai_server() as server:
        measured_after: list[int] = []
        streams = [Stream([question()], [question("short"), question(), question(tokens=5)]) for _ in range(5)]
        target = Endpoint("http", server.url, "m")
        outcome = await asyncio.to_thread(run, target, streams, 2, lambda: measured_after.append(len(server.bodies)))
    # Every stream had warmed up, and nothing else was asked before the measured part began.
    assert measured_after == [5]
    samples = [answer for answer in outcome.answers if isinstance(answer, Sample)]
    assert (len(outcome.answers), len(samples)) == (15, 10)
    assert sum(sample.output_tokens for sample in samples) == 5 * (3 + 5)
    assert outcome.busy > 0
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
async def test_no_client_process_outlives_the_load(number: signal.Signals) -> None:
    text = (
        "import sys\n"
        "from scripts.bench.load import Endpoint, run\n"
        "from scripts.bench.questions import Question, Stream\n"
        "if __name__ == '__main__':\n"
        "    asked = Question(({'role': 'user', 'content': 'go'},), (1, 2, 3, 4), 3)\n"
        "    def measuring():\n"
        "        print('measuring', flush=True)\n"
        "    run(Endpoint('http', sys.argv[1], 'm'), [Stream([asked], [asked] * 20_000)] * 2, 2, measuring)\n"
    )
    async with openai_server() as server:
        program = subprocess.Popen(
            [sys.executable, "-c", text, server.url],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert program.stdout is not None
        assert await asyncio.to_thread(program.stdout.readline) == b"measuring\n"
        workers = psutil.Process(program.pid).children(recursive=True)
        assert len([worker for worker in workers if "spawn_main" in " ".join(worker.cmdline())]) == 2
        os.kill(program.pid, number)
        await asyncio.to_thread(program.communicate, timeout=60)
        _, alive = await asyncio.to_thread(psutil.wait_procs, workers, 30)
    assert program.returncode != 0
    assert not alive
