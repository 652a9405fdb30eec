# SPDX-License-Identifier: Apache-2.0
"""A full server, and requests that end early: in the queue, while the body arrives, while fetching or streaming."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.fakes.fake_triton import Call, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving
from tests.fakes.web_server import Web, web

FULL = {"max_in_flight": 1, "max_queued": 1, "queue_timeout": WAIT}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.01)


async def at_rest(served: Serving) -> None:
    """Wait until no request is admitted or queued."""
    slots = served.server.app.state.service.catalog.alone.slots
    await until(lambda: (slots.admitted, slots.in_flight, slots.queued) == (0, 0, 0))
    text = (await served.http.get("/metrics")).text
    assert 'triton_chat_in_flight{model="model"} 0.0' in text
    assert 'triton_chat_queued{model="model"} 0.0' in text


def queued(served: Serving) -> int:
    return served.server.app.state.service.catalog.alone.slots.queued


class Holding:
    """A script whose answers do not end until `let_go` is set."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def __call__(self, call: Call) -> AsyncIterator[Any]:
        waits = [asyncio.create_task(self.let_go.wait()), asyncio.create_task(call.stopped.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in waits:
            one.cancel()
        yield finish("cancelled" if call.stopped.is_set() else "stop", text="done")


async def fill(served: Serving, **fields: Any) -> tuple[Holding, "asyncio.Task[Any]"]:
    """Start one request, which takes the only slot."""
    served.triton.script = holding = Holding()
    working = asyncio.create_task(served.chat(**fields))
    await until(lambda: len(served.triton.calls) == 1)
    return holding, working


async def post(served: Serving, data: bytes, length: int | None = None) -> tuple[Any, asyncio.StreamWriter]:
    """Post a chat over a bare connection; with `length` above its size the body is incomplete."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1)
    size = len(data) if length is None else length
    writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), size, data))
    return reader, writer


class TestQueue:
    async def test_one_request_queues_and_the_next_is_refused_at_once(self) -> None:
        async with serving(**FULL) as served:
            holding, working = await fill(served)
            waiting = asyncio.create_task(served.chat())
            await until(lambda: queued(served) == 1)
            assert 'triton_chat_queued{model="model"} 1.0' in (await served.http.get("/metrics")).text
            refused = await served.chat()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert len(served.triton.calls) == 1
            holding.let_go.set()
            assert [(await one).status_code for one in (working, waiting)] == [200, 200]
            await at_rest(served)

    async def test_the_queue_has_its_own_time_limit(self) -> None:
        async with serving(**FULL | {"queue_timeout": 0.05}) as served:
            holding, working = await fill(served)
            refused = await served.chat()
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            holding.let_go.set()
            assert (await working).status_code == 200
            assert len(served.triton.calls) == 1

    async def test_a_deadline_counts_in_the_queue(self) -> None:
        async with serving(**FULL) as served:
            holding, working = await fill(served)
            late = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Timeout": "0.05"})
            assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
            assert queued(served) == 0
            holding.let_go.set()
            assert (await working).status_code == 200
            assert len(served.triton.calls) == 1

    async def test_a_disconnect_in_the_queue(self) -> None:
        async with serving(**FULL) as served:
            holding, working = await fill(served)
            _, writer = await post(served, json.dumps(HELLO).encode())
            await until(lambda: queued(served) == 1)
            writer.close()
            await until(lambda: queued(served) == 0)
            holding.let_go.set()
            assert (await working).status_code == 200
            assert len(served.triton.calls) == 1
            await at_rest(served)

    async def test_a_disconnect_between_slot_and_turn_gives_the_slot_back(self) -> None:
        async with serving(**FULL) as served:
            service = served.server.app.state.service
            turns, slots = service.admission._turns, service.catalog.alone.slots
            turns._taken = True  # A turn that does not end.
            _, writer = await post(served, json.dumps(HELLO).encode())
            await until(lambda: len(turns._waiting) == 1)
            assert slots.in_flight == 1
            writer.close()
            await at_rest(served)
            turns._give_next()
            assert (await served.chat()).status_code == 200

    async def test_a_shutdown_cancels_queued_requests(self) -> None:
        async with serving(**FULL) as served:
            _, working = await fill(served)
            waiting = asyncio.create_task(served.chat())
            await until(lambda: queued(served) == 1)
            served.server.app.state.service.admission.cancel_all()
            for one in (waiting, working):
                response = await one
                assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
            await served.stopped()
            assert len(served.triton.calls) == 1

    async def test_tokenizing_needs_a_slot_too(self) -> None:
        async with serving(**FULL) as served:
            holding, working = await fill(served)
            waiting = asyncio.create_task(served.http.post("/tokenize", json={"prompt": "hi"}))
            await until(lambda: queued(served) == 1)
            assert len(served.triton.calls) == 1
            holding.let_go.set()
            assert (await waiting).json()["count"] == 3
            await working


class TestOrder:
    """The steps of `Admission.admit`: each refuses before the next is taken."""

    async def test_a_full_server_refuses_before_it_reads_anything(self) -> None:
        async with serving(max_in_flight=1, max_queued=0) as served:
            holding, working = await fill(served)
            refused = await served.http.post(CHAT, content=b"{", headers={"X-Request-Timeout": "x"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
            holding.let_go.set()
            await working

    async def test_then_the_deadline_then_the_body(self) -> None:
        async with serving() as served:
            refused = await served.http.post(CHAT, content=b"{", headers={"X-Request-Timeout": "x"})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "X-Request-Timeout")
            refused = await served.http.post(CHAT, content=b"{")
            assert (refused.status_code, "not valid JSON" in refused.text) == (400, True)

    async def test_then_the_queue(self) -> None:
        async with serving(**FULL) as served:
            holding, working = await fill(served)
            refused = await served.http.post(CHAT, content=b"{")
            assert (refused.status_code, queued(served)) == (400, 0)
            holding.let_go.set()
            await working
            await at_rest(served)


class TestBody:
    async def test_a_request_takes_no_slot_while_its_body_arrives(self) -> None:
        async with serving(**FULL) as served:
            _, writer = await post(served, b"{", 1000)
            await until(lambda: served.server.app.state.service.catalog.alone.slots.admitted == 1)
            assert (await served.chat()).status_code == 200
            writer.close()
            await at_rest(served)

    async def test_a_slow_body_is_refused(self) -> None:
        async with serving(body_timeout=0.05) as served:
            reader, writer = await post(served, b"{", 1000)
            answer = await asyncio.wait_for(reader.read(10_000_000), WAIT)
            assert answer.startswith(b"HTTP/1.1 408")
            assert await asyncio.wait_for(reader.read(), WAIT) is not None, "and the connection is closed"
            writer.close()
            assert not served.triton.calls
            await at_rest(served)


class TestFetching:
    async def hanging(self, use: Callable[[Serving, Web, dict[str, Any]], Awaitable[None]]) -> None:
        """Run with an image server that never answers; at the end no connection to it may be open."""

        async def hang(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            await server.readers[writer].read()

        async with web(hang) as server, serving(image_private_hosts=True, image_timeout=60.0) as served:
            part = {"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{server.port}/image"}}
            await use(served, server, {"messages": [{"role": "user", "content": [part]}]})
            await server.all_closed()
            assert not served.triton.calls
            await at_rest(served)

    async def test_a_deadline_ends_it(self) -> None:
        async def use(served: Serving, server: Web, body: dict[str, Any]) -> None:
            late = await served.http.post(CHAT, json=body, headers={"X-Request-Timeout": "0.2"})
            assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")

        await self.hanging(use)

    async def test_a_disconnect_ends_it(self) -> None:
        async def use(served: Serving, server: Web, body: dict[str, Any]) -> None:
            _, writer = await post(served, json.dumps(body).encode())
            await until(lambda: server.open == 1)
            writer.close()

        await self.hanging(use)

    async def test_a_shutdown_ends_it(self) -> None:
        async def use(served: Serving, server: Web, body: dict[str, Any]) -> None:
            asking = asyncio.create_task(served.http.post(CHAT, json=body))
            await until(lambda: server.open == 1)
            served.server.app.state.service.admission.cancel_all()
            assert (await asking).json()["error"]["code"] == "unavailable"

        await self.hanging(use)


async def flood(call: Call) -> AsyncIterator[Any]:
    """Send far more than sockets hold, until stopped."""
    while not call.stopped.is_set():
        yield reply("x" * 200_000)
        await asyncio.sleep(0)
    yield finish("cancelled")


async def trickle(call: Call) -> AsyncIterator[Any]:
    """Send more than sockets hold, then almost nothing."""
    for _ in range(60):
        yield reply("x" * 200_000)
    while not call.stopped.is_set():
        yield reply("x")
        await asyncio.sleep(0.01)
    yield finish("cancelled")


class TestSlowReaders:
    @pytest.mark.parametrize(
        ("script", "settings"),
        [
            pytest.param(trickle, {"stall_timeout": 0.3, "max_backlog": 2**30}, id="reads-nothing"),
            pytest.param(flood, {"stall_timeout": 4 * WAIT, "max_backlog": 100_000}, id="too-much-waits"),
        ],
    )
    async def test_a_slow_reader_is_aborted(self, script: Any, settings: dict[str, Any]) -> None:
        async with serving(**settings) as served:
            served.triton.script = script
            _, writer = await post(served, json.dumps(HELLO | {"stream": True}).encode())
            await until(lambda: len(served.triton.calls) == 1)
            await served.stopped()
            await at_rest(served)
            text = (await served.http.get("/metrics")).text
            assert 'outcome="slow_reader"' in text
            (counted,) = re.findall(r'triton_chat_request_generation_tokens_sum{model="model"} (\S+)', text)
            assert float(counted) > 0
            writer.transport.abort()

    async def test_its_connection_is_closed_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Otherwise its buffers would be held for as long as the client does nothing."""
        monkeypatch.setattr("frontend.server.PEER_TIMEOUT", 1)
        async with serving(stall_timeout=0.3) as served:
            served.triton.script = trickle
            _, writer = await post(served, json.dumps(HELLO | {"stream": True}).encode())
            connections = served.server.server_state.connections
            await until(lambda: len(connections) == 1)
            await until(lambda: not connections)
            writer.transport.abort()

    async def test_a_deadline_in_the_middle_of_a_blocked_write(self) -> None:
        async with serving(stall_timeout=0.5, request_timeout=0.5) as served:
            served.triton.script = flood
            _, writer = await post(served, json.dumps(HELLO | {"stream": True}).encode())
            await until(lambda: len(served.triton.calls) == 1)
            await served.stopped()
            await at_rest(served)
            writer.transport.abort()

    async def test_a_client_that_reads_gets_all_of_it(self) -> None:
        """A large backlog without a blocked write is not a slow reader."""

        async def large(call: Call) -> AsyncIterator[Any]:
            for _ in range(50):
                yield reply("x" * 100_000)
            yield finish()

        async with serving(stall_timeout=5.0, max_backlog=1000) as served:
            served.triton.script = large
            chunks = await served.chunks()
            text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
            assert len(text) == 5_000_000


async def test_a_tokenizer_that_hangs_is_abandoned_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:
        hung = asyncio.Event()

        async def hang(*_: Any) -> None:
            hung.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(served.server.app.state.service.triton, "infer", hang)
        late = await served.http.post("/tokenize", json={"prompt": "hi"}, headers={"X-Request-Timeout": "0.1"})
        assert (late.status_code, hung.is_set()) == (504, True)
        await at_rest(served)


async def test_many_disconnects_at_random_times() -> None:
    """Clients disconnect after random times: at the end all requests are stopped and nothing is held."""

    async def slowly(call: Call) -> AsyncIterator[Any]:
        for _ in range(20):
            if call.stopped.is_set():
                break
            await asyncio.sleep(0.005)
            yield reply("word ")
        yield finish("cancelled" if call.stopped.is_set() else "stop")

    async with serving(max_in_flight=8, max_queued=40, queue_timeout=WAIT) as served:
        served.triton.script = slowly

        async def one(index: int) -> None:
            body = HELLO | {"stream": index % 2 == 0}
            _, writer = await post(served, json.dumps(body).encode())
            await asyncio.sleep((index * 37 % 100) / 500)
            writer.transport.abort()

        await asyncio.gather(*[one(index) for index in range(120)])
        await at_rest(served)
        stream = served.server.app.state.service.triton.stream
        await until(lambda: not stream._receivers and not len(stream._cancellations))
        served.triton.script = Holding()
        served.triton.script.let_go.set()
        assert (await served.chat()).status_code == 200
