# SPDX-License-Identifier: Apache-2.0
"""Tokens that are written as they come, past the task of their answer: the same events, and failures of one stream only."""

import asyncio
import gc
import inspect
import json
import weakref
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from common.response_batch import AnswerRow
from frontend.endpoints.chat import ChatPlan
from frontend.serving.body_parts import BodyParts
from frontend.serving.slow_readers import StreamWriter
from frontend.serving.turns import Turns
from frontend.serving.write_throttle import WriteThrottle
from frontend.triton.response_queue import ResponseQueue
from frontend.triton.tensors import Delta
from tests.fakes.fake_triton import Call, batch, batch_of, finish, reply, together
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMPT = {"prompt": "Hi"}
INPUT = {"input": "Hi"}
BODIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT, HELLO),
    (CHAT, HELLO | {"n": 2}),
    (CHAT, HELLO | {"stream_options": {"include_usage": True}}),
    (CHAT, HELLO | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}),
    (CHAT, HELLO | {"return_token_ids": True}),
    ("/v1/completions", PROMPT),
    ("/v1/completions", PROMPT | {"n": 2, "stream_options": {"include_usage": True}}),
    ("/v1/completions", PROMPT | {"max_tokens": 0, "echo": True}),
    ("/v1/responses", INPUT),
    ("/v1/messages", HELLO | {"max_tokens": 20}),
]


TEXTS = ("Hello", " \u4f60\u597d", '"\n\\', "", "\0\U0001f60a", " end")


def one_by_one(served: Serving) -> Any:
    """A script of texts of all kinds, each sent when the one before it has been written: none is merged with the next."""
    receivers = served.server.app.state.service.triton.stream._receivers

    async def script(call: Call) -> AsyncIterator[Any]:
        replies = [reply(text) for text in TEXTS] + [reply("", reasoning_output="so")]
        for number, one in enumerate(replies):
            yield one
            receiver = receivers[call.id]
            async with asyncio.timeout(WAIT):
                while receiver.rows.next <= number or receiver.queue.size() or not receiver.queue.listened:
                    await asyncio.sleep(0.001)
        yield finish(completion=6, text=".")

    return script


async def events(served: Serving, path: str, body: dict[str, Any]) -> list[Any]:
    """The events of an answer without what differs between two answers."""
    response = await served.http.post(path, json=body | {"stream": True})
    assert response.status_code == 200, response.text
    found = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    return [_plain(event) for event in found]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        volatile = ("id", "item_id", "created", "created_at", "completed_at")
        return {key: _plain(one) for key, one in value.items() if key not in volatile}
    return [_plain(one) for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("path", "body"), BODIES)
async def test_events_are_those_that_the_task_would_write(
    served: Serving, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    served.triton.script = one_by_one(served)
    pushed = await events(served, path, body)
    monkeypatch.setattr(BodyParts, "ready", False)
    # Choices take turns as they come; each alone is in order.
    assert _by_choice(pushed) == _by_choice(await events(served, path, body))


def _by_choice(found: list[Any]) -> list[list[Any]]:
    choices = [event["choices"][0]["index"] if event.get("choices") else -1 for event in found]
    return [[event for event, one in zip(found, choices, strict=True) if one == choice] for choice in (-1, 0, 1)]


async def test_the_task_writes_only_the_beginning_and_the_end(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = StreamWriter.write

    async def noted(writer: StreamWriter, body: bytes, *, more: bool = True) -> None:
        written.append(body)
        await write(writer, body, more=more)

    monkeypatch.setattr(StreamWriter, "write", noted)
    served.triton.script = one_by_one(served)
    chunks = await served.chunks()
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == "".join((*TEXTS, "."))
    assert len(written) == 2


async def test_a_failure_to_write_a_token_ends_only_its_stream(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    text_chunk = ChatPlan.text_chunk

    def failing(plan: ChatPlan, choice: int, text: str) -> bytes:
        if text == "bad":
            raise RuntimeError("no such text")
        return text_chunk(plan, choice, text)

    both, read = asyncio.Barrier(2), {text: asyncio.Event() for text in ("bad", "good")}

    async def script(call: Call) -> AsyncIterator[Any]:
        text = call.messages["messages"][0]["content"]
        await both.wait()
        yield reply("first")
        await read[text].wait()
        yield reply(text)
        yield finish()

    async def ask(text: str) -> str:
        body = HELLO | {"stream": True, "messages": [{"role": "user", "content": text}]}
        async with served.http.stream("POST", CHAT, json=body) as response:
            found = ""
            async for part in response.aiter_text():
                found += part
                if '"content":"first"' in found:
                    read[text].set()
        return found

    monkeypatch.setattr(ChatPlan, "text_chunk", failing)
    served.triton.script = script
    bad, good = await asyncio.gather(ask("bad"), ask("good"))
    assert '"error"' in bad and '"finish_reason":"stop"' not in bad and "no such text" not in bad
    assert '"content":"good"' in good and '"finish_reason":"stop"' in good and '"error"' not in good


async def test_a_client_that_goes_away_in_the_middle_is_noticed(served: Serving) -> None:
    async def endless(call: Call) -> AsyncIterator[Any]:
        while not call.stopped.is_set():
            yield reply("word ")
            await asyncio.sleep(0.002)
        yield finish("cancelled")

    served.triton.script = endless
    async with served.http.stream("POST", CHAT, json=HELLO | {"stream": True}) as response:
        lines = response.aiter_lines()
        for _ in range(20):
            await anext(lines)
    await served.stopped()


async def test_a_lost_connection_with_a_pipelined_request_ends_only_its_stream(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BodyParts.write

    def write_as_uvloop(parts: BodyParts, part: bytes) -> None:
        if parts._transport.is_closing():
            raise RuntimeError("the transport is closed")
        write(parts, part)

    lost = asyncio.Event()

    async def script(call: Call) -> AsyncIterator[Any]:
        text = call.messages["messages"][0]["content"]
        while not (call.stopped.is_set() or (text == "good" and lost.is_set())):
            yield reply("word ")
            await asyncio.sleep(0.002)
        yield finish()

    monkeypatch.setattr(BodyParts, "write", write_as_uvloop)
    served.triton.script = script
    good = asyncio.create_task(served.chat(messages=[{"role": "user", "content": "good"}], stream=True))
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(HELLO | {"stream": True}).encode()
    pipelined = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    writer.write(2 * pipelined)
    async with asyncio.timeout(WAIT):
        for _ in range(3):
            await reader.readuntil(b"word ")
        writer.transport.abort()
        bad = [one.messages["messages"][0]["content"] for one in served.triton.calls].index("Hi")
        await served.stopped([bad])
    lost.set()
    text = (await good).text
    assert '"finish_reason":"stop"' in text and '"error"' not in text
    assert len(served.triton.calls) == 2


async def test_a_part_that_the_connection_refuses_ends_only_its_stream(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a row that is only text, and as any other."""
    write = BodyParts.write

    def failing(parts: BodyParts, part: bytes) -> None:
        if b"bad" in part:
            raise RuntimeError("the transport is closed")
        write(parts, part)

    monkeypatch.setattr(BodyParts, "write", failing)
    for more in ({}, {"reasoning_output": "so"}):
        served.triton.script = answer_after_first(served, more)
        bad, good = await asyncio.gather(ask(served, "bad"), ask(served, "good"))
        assert '"error"' in bad and '"finish_reason":"stop"' not in bad
        assert '"content":"good"' in good and '"finish_reason":"stop"' in good and '"error"' not in good


def answer_after_first(served: Serving, more: dict[str, Any]) -> Any:
    """A script that repeats the text of the request in a response with `more`, once its first one has been written."""

    async def script(call: Call) -> AsyncIterator[Any]:
        yield reply("first")
        await until_listened(served, call)
        yield reply(call.messages["messages"][0]["content"], **more)
        yield finish()

    return script


async def ask(served: Serving, text: str) -> str:
    return (await served.chat(messages=[{"role": "user", "content": text}], stream=True)).text


@pytest.mark.parametrize("put", [lambda queue: queue.put_text(0, "so"), lambda queue: queue.put(0, Delta("so"), 1)])
async def test_a_listener_that_fails_ends_its_queue_only(put: Callable[[ResponseQueue], None]) -> None:
    class Failing:
        def take_text(self, choice: int, text: str) -> bool:
            raise ZeroDivisionError

        def take(self, delta: Delta) -> bool:
            raise ZeroDivisionError

    queue = ResponseQueue()
    taking = asyncio.create_task(queue.take(Failing()))
    await asyncio.sleep(0)
    put(queue)
    with pytest.raises(ZeroDivisionError):
        await taking
        await queue.take()


async def test_a_paused_stream_gets_what_has_waited_in_one_write(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_writes(served, monkeypatch)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> AsyncIterator[Any]:
        yield batch(call.id, 0, reply("a"))
        await begun.wait()
        yield batch_of(*(AnswerRow(call.id, number, text, None) for number, text in ((1, "b"), (2, "c"), (3, "d"))))
        await ended.wait()
        yield batch(call.id, 4, finish())

    served.triton.script = script
    parts: list[str] = []
    async with served.http.stream("POST", CHAT, json=HELLO | {"stream": True}) as response, asyncio.timeout(WAIT):
        async for part in response.aiter_text():
            parts.append(part)
            begun.set()
            while not held:
                await asyncio.sleep(0.001)
            if len(parts) == 1:
                held[0]()
            ended.set()
    texts = [json.loads(line[6:]) for line in "".join(parts).splitlines() if line.startswith("data: {")]
    assert [one["choices"][0]["delta"].get("content") for one in texts] == ["", "a", "bcd", None]
    assert len(held) == 1


async def test_a_held_part_that_the_connection_refuses_ends_its_stream(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_writes(served, monkeypatch)

    def failing(parts: BodyParts, part: bytes) -> None:
        raise RuntimeError("the transport is closed")

    async def script(call: Call) -> AsyncIterator[Any]:
        yield reply("a")
        await until_listened(served, call)
        yield reply("b")
        await call.stopped.wait()
        yield finish()

    monkeypatch.setattr(BodyParts, "write", failing)
    served.triton.script = script
    async with asyncio.timeout(WAIT):
        asking = asyncio.create_task(served.chat(stream=True))
        while not held:
            await asyncio.sleep(0.001)
        held[0]()
        assert '"error"' in (await asking).text
    await served.stopped()


def hold_writes(served: Serving, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Let all writes after the first wait for a pause that does not end; returns those that wait."""
    throttle = served.server.app.state.service.write_throttle
    held: list[Callable[[], None]] = []
    monkeypatch.setattr(WriteThrottle, "_count", lambda self, change: None)
    monkeypatch.setattr(throttle, "pause", WAIT)
    monkeypatch.setattr(throttle, "call_at", lambda when, write: held.append(write))
    return held


async def until_listened(served: Serving, call: Call) -> None:
    """Wait until the task of this request has written all that has come, and listens again."""
    queue = served.server.app.state.service.triton.stream._receivers[call.id].queue
    async with asyncio.timeout(WAIT):
        while queue.size() or not queue.listened:
            await asyncio.sleep(0.001)


async def test_rows_after_one_that_failed_are_ignored_up_to_the_end(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several rows that get into order at once: the first cannot be written, which ends the request."""
    write, written = BodyParts.write, []

    def failing(parts: BodyParts, part: bytes) -> None:
        if b"bad" in part or b"later" in part:
            written.append(part)
            raise RuntimeError("the transport is closed")
        write(parts, part)

    async def script(call: Call) -> AsyncIterator[Any]:
        if call.messages["messages"][0]["content"] == "bad":
            yield batch(call.id, 0, reply("first"))
            await until_listened(served, call)
            late = (batch(call.id, 3, finish()), batch(call.id, 2, reply("later")), batch(call.id, 1, reply("bad")))
            yield together(*late)
            bad_sent.set()
        else:
            yield reply("good")
            await bad_sent.wait()
            yield finish()

    bad_sent = asyncio.Event()
    monkeypatch.setattr(BodyParts, "write", failing)
    served.triton.script = script
    bad, good = await asyncio.gather(ask(served, "bad"), ask(served, "good"))
    assert '"error"' in bad and len(written) == 1
    assert '"finish_reason":"stop"' in good and '"error"' not in good
    # Nothing is left to stop.
    assert not served.server.app.state.service.triton.stream._cancellations


def streaming_cycle(transport: Any) -> RequestResponseCycle:
    """A request in the middle of a streamed response."""
    made: dict[str, Any] = dict.fromkeys(inspect.signature(RequestResponseCycle).parameters)
    made |= {"scope": {}, "transport": transport, "flow": SimpleNamespace(write_paused=False)}
    cycle = RequestResponseCycle(**made)
    cycle.chunked_encoding = True
    return cycle


async def test_a_connection_that_closes_takes_no_parts() -> None:
    transport = SimpleNamespace(is_closing=lambda: True)
    cycle = streaming_cycle(transport)
    parts = BodyParts(cycle)
    assert not parts.ready
    transport.is_closing = lambda: False
    assert parts.ready
    cycle.response_complete = True
    assert not parts.ready


async def test_a_request_is_freed_without_the_garbage_collector() -> None:
    cycle = streaming_cycle(SimpleNamespace(is_closing=lambda: False))
    cycle.scope["extensions"] = {"body": (parts := BodyParts(cycle))}
    left = weakref.ref(cycle)
    gc.disable()
    try:
        del cycle
        assert left() is None
    finally:
        gc.enable()
    assert not parts.ready


async def test_a_held_write_that_has_nothing_left_does_not_wake_the_task(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold_writes(served, monkeypatch)
    one_ended = asyncio.Event()

    async def script(call: Call) -> AsyncIterator[Any]:
        if call is served.triton.calls[0]:
            yield reply("a")
            await until_listened(served, call)
            yield reply("b")
            while not held:
                await asyncio.sleep(0.001)
            yield finish()  # The task writes it, and what was held.
            one_ended.set()
        else:
            await one_ended.wait()
            await until_listened(served, call)
            # Now the client does not read.
            monkeypatch.setattr(BodyParts, "ready", False)
            held[0]()
            await asyncio.sleep(0.01)
            yield finish()

    served.triton.script = script
    async with asyncio.timeout(WAIT):
        text = (await served.chat(stream=True, n=2)).text
    assert text.count('"finish_reason":"stop"') == 2 and '"error"' not in text and text.count('"content":"b"') == 1


async def test_due_writes_come_in_order_and_one_that_fails_does_not_keep_the_others() -> None:
    throttle, done = WriteThrottle(), asyncio.Event()
    written: list[str] = []

    def fail() -> None:
        written.append("fails")
        raise RuntimeError

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: written.append("reported"))
    for write in (lambda: written.append("one"), fail, lambda: (written.append("two"), done.set())):
        throttle.call_at(0.0, write)  # type: ignore[arg-type] # it returns something
    async with asyncio.timeout(WAIT):
        await done.wait()
    asyncio.get_running_loop().set_exception_handler(None)
    assert written == ["one", "fails", "reported", "two"]


async def test_one_request_begins_in_each_turn_of_the_loop() -> None:
    turns, begun = Turns(), []

    async def begin(name: int) -> None:
        await turns.take()
        begun.append(name)

    tasks = [asyncio.create_task(begin(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert begun == [0]
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert begun == [0, 2, 3, 4]
    await asyncio.sleep(0)
    await begin(5)
    assert begun[-1] == 5
