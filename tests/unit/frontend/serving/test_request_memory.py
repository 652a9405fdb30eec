# SPDX-License-Identifier: Apache-2.0
"""Large bodies and pictures wait for room in the process's memory; small requests never do."""

import asyncio
import gc
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from common.errors import RequestError
from frontend.errors import ApiError
from frontend.images import ImageFetcher
from frontend.serving.answer import Plan
from frontend.serving.generation import Generation
from frontend.serving.request_memory import FREE, PARSED, SENT, HeldMemory, RequestMemory, weigh
from frontend.settings import Settings
from tests.fakes.fake_triton import Call, failure, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving
from tests.fakes.web_server import pixels, web

SIZE = 200_000  # of a large body
LARGE = {"messages": [{"role": "user", "content": "a" * SIZE}]}
CONTINUED = {"continue_final_message": True, "add_generation_prompt": False, "echo": True}
# Room for one large body and half of another one; a fourth is for pictures.
ROOM = (PARSED + SENT) * SIZE * 3 // 2 * 4 // 3


def memory_of(served: Serving) -> RequestMemory:
    return served.server.app.state.service.admission._memory


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.asyncio(loop_scope="module")
class TestRoom:
    async def test_first_come_first_served(self) -> None:
        memory = RequestMemory(400, WAIT)  # 300 of it without pictures
        order: list[str] = []

        async def hold(name: str, size: int) -> None:
            await memory.acquire(size)
            order.append(name)

        await hold("first", 200)
        waiting = [asyncio.create_task(hold(name, size)) for name, size in (("large", 250), ("small", 50))]
        await asyncio.sleep(0)
        assert order == ["first"] and memory.held == 200, "a small one does not overtake for ever"
        memory.release(200)
        await asyncio.gather(*waiting)
        assert order == ["first", "large", "small"] and memory.held == 300
        memory.release(300)
        assert memory.held == 0

    async def test_a_wait_ends(self) -> None:
        memory = RequestMemory(400, 0.01)
        await memory.acquire(300)
        with pytest.raises(ApiError, match="large requests") as refused:
            await memory.acquire(1)
        assert refused.value.shape.status == 503
        memory.release(300)
        await memory.acquire(300)

    @pytest.mark.parametrize("more", [False, True], ids=["first-room", "more-room"])
    @pytest.mark.parametrize("when", ["before", "in-the-same-moment", "after"])
    async def test_who_is_cancelled_leaves_nothing(self, more: bool, when: str) -> None:
        """The cancellation comes before or after there is room, or both before the request has noticed anything."""
        memory = RequestMemory(400, WAIT)
        await memory.acquire(300)
        if more:
            assert await memory.extend(1), "others cannot go beyond the limit now"
        wait = memory.extend if more else memory.acquire
        first, second = (asyncio.create_task(wait(300)) for _ in range(2))
        await asyncio.sleep(0)

        def free() -> None:
            memory.release(memory.held)
            if more:
                memory.end_excess()

        if when == "after":
            free()
        first.cancel()
        if when == "in-the-same-moment":
            free()
        with pytest.raises(asyncio.CancelledError):
            await first
        if when == "before":
            free()
        await asyncio.wait_for(second, WAIT)
        assert memory.held == 300

    async def test_one_that_needs_more_than_there_is_runs_alone(self) -> None:
        memory = RequestMemory(400, WAIT)
        with HeldMemory(memory) as held:
            await held.reserve_body(10**9)
            held.take_picture(10**9)
            assert (memory.held, memory.pictures) == (300, 100)
        assert (memory.held, memory.pictures) == (0, 0)

    async def test_those_that_hold_room_do_not_wait_for_each_other_for_ever(self) -> None:
        memory = RequestMemory(400, WAIT)
        with HeldMemory(memory) as first, HeldMemory(memory) as second:
            for held in (first, second):
                await held.reserve_body(30)
            # Both need more than is left: one goes beyond the limit, the other one has its turn then.
            await first.reserve_sent(200)
            waiting = asyncio.create_task(second.reserve_sent(200))
            await asyncio.sleep(0)
            held = memory.held
            assert not waiting.done() and held > 300
            await first.reserve_sent(201)
            assert memory.held == held + SENT
            first.release_sent()
            await asyncio.wait_for(waiting, WAIT)
        assert memory.held == 0
        assert await asyncio.wait_for(memory.extend(500), WAIT), "the next one may"

    async def test_what_is_kept_beyond_the_limit_lets_nobody_else_go_beyond(self) -> None:
        memory = RequestMemory(400_000, WAIT)
        body = b"[" + b"[]," * 30_000 + b"[]]"
        with HeldMemory(memory) as second:
            with HeldMemory(memory) as first:
                for held in (first, second):
                    await held.reserve_body(1000)
                await first.reserve_values(body)
                first.release_sent(weigh(body))
                waiting = asyncio.create_task(second.reserve_values(body))
                await asyncio.sleep(0)
                assert not waiting.done() and memory.exceeded
            await asyncio.wait_for(waiting, WAIT)
        assert memory.held == 0

    async def test_what_is_kept_while_an_answer_is_made(self) -> None:
        memory = RequestMemory(10**9, WAIT)
        body = b'{"prompt":"' + b"a" * SIZE + b'"}'
        with HeldMemory(memory) as held:
            await held.reserve_body(len(body))
            await held.reserve_values(body)
            assert memory.held == (PARSED + SENT) * len(body) + weigh(body) - len(body)
            held.take_picture(1000)
            held.release_sent(SIZE)
            assert (memory.held, memory.pictures) == (SIZE, 0)
            held.release_sent()
            assert memory.held == 0

    async def test_a_body_that_is_shorter_than_was_reserved(self) -> None:
        memory = RequestMemory(10**9, WAIT)
        with HeldMemory(memory) as held:
            await held.reserve_body(10**6)
            held.fit_body(SIZE)
            assert memory.held == (PARSED + SENT) * SIZE
            held.fit_body(10**6)
            assert memory.held == (PARSED + SENT) * SIZE
        assert memory.held == 0

    async def test_pictures_do_not_wait(self) -> None:
        memory = RequestMemory(400, WAIT)
        with HeldMemory(memory) as one, HeldMemory(memory) as other:
            one.take_picture(60)
            with pytest.raises(ApiError, match="large requests"):
                other.take_picture(60)


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b",".join([b"[]"] * 50_000) + b"]",
        b"[" + b",".join([b"{}"] * 50_000) + b"]",
        b"[" + b",".join([b"[[[]]]"] * 20_000) + b"]",
        b"[" + b",".join([b"123456"] * 50_000) + b"]",
        b"[" + b",".join([b'"ab"'] * 50_000) + b"]",
        b"{" + b",".join(b'"%d":1.5' % number for number in range(50_000)) + b"}",
        b'{"prompt":"' + b"a" * 300_000 + b'"}',
        ('{"prompt":"' + "a" * 300_000 + "\N{GRINNING FACE}" + '"}').encode(),
        b'{"prompt":"' + b"a" * 300_000 + b'\\ud83d\\ude00"}',
        ('{"prompt":"' + "\u6f22" * 100_000 + '"}').encode(),
    ],
    ids=["lists", "objects", "nested", "numbers", "texts", "fields", "ascii", "wide", "escaped", "chinese"],
)
def test_parsed_values_take_no_more_than_they_weigh(body: bytes) -> None:
    def size(value: Any) -> int:
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        keys = map(sys.getsizeof, value) if isinstance(value, dict) else ()
        return sys.getsizeof(value) + sum(keys) + sum(map(size, below))

    assert size(json.loads(body)) <= weigh(body) + 1000


@pytest.mark.asyncio(loop_scope="module")
class TestRequests:
    async def test_large_bodies_wait_and_are_served(self) -> None:
        async with serving(max_request_memory=ROOM) as served:
            go_on = asyncio.Event()

            async def script(call: Call) -> AsyncIterator[Any]:
                await go_on.wait()
                yield finish(text="done")

            served.triton.script = script
            large = [asyncio.create_task(served.http.post(CHAT, json=LARGE)) for _ in range(3)]
            await until(lambda: len(served.triton.calls) == 1 and bool(memory_of(served)._queue))
            # A small one has its place all the same.
            small = asyncio.create_task(served.chat())
            await until(lambda: len(served.triton.calls) == 2)
            assert memory_of(served).held <= ROOM
            go_on.set()
            responses = await asyncio.gather(*large, small)
            assert {one.json()["choices"][0]["message"]["content"] for one in responses} == {"done"}
            assert memory_of(served).held == 0

    @pytest.mark.parametrize(
        ("path", "body", "kept"),
        [
            (CHAT, LARGE, 0),
            (CHAT, HELLO | {"unknown": "[" * SIZE}, 0),
            (CHAT, HELLO | {"metadata": {"a": "b" * SIZE}}, 0),
            (CHAT, {"messages": [*HELLO["messages"], {"role": "assistant", "content": "a" * SIZE}], **CONTINUED}, SIZE),
            ("/v1/completions", {"prompt": "a" * SIZE}, 0),
            ("/v1/completions", {"prompt": ["a" * SIZE], "echo": True, "n": 3}, SIZE),
            ("/v1/messages", LARGE | {"model": "model", "max_tokens": 5}, 0),
            ("/v1/responses", {"input": "a" * SIZE}, 0),
            ("/v1/responses", {"input": "Hi", "instructions": "[" * SIZE}, SIZE),
        ],
        ids=["chat", "unknown", "ignored", "continued", "completion", "echo", "messages", "responses", "instructions"],
    )
    async def test_a_stream_keeps_what_it_needs(self, path: str, body: dict[str, Any], kept: int) -> None:
        async with serving(max_request_memory=10 * ROOM) as served:

            async def script(call: Call) -> AsyncIterator[Any]:
                yield reply("on and on")
                await call.stopped.wait()

            served.triton.script = script
            async with served.http.stream("POST", path, json=body | {"stream": True}) as response:
                async for line in response.aiter_lines():
                    if "on and on" in line:
                        break
                assert kept <= memory_of(served).held < kept + 1000
            await until(lambda: memory_of(served).held == 0)

    @pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
    async def test_nothing_of_the_body_is_left_behind_a_stream(self, path: str) -> None:
        mark = f"mark of {path}"
        tool: dict[str, Any] = {"name": "f", "description": "d", "parameters": {"enum": [mark]}}
        fields: dict[str, Any] = {
            CHAT: HELLO | {"tools": [{"type": "function", "function": tool}]},
            "/v1/completions": {"prompt": "Hi", "guided_choice": [mark]},
            "/v1/responses": {"input": [{"role": "user", "content": "Hi", "x": [mark]}]},
            "/v1/messages": HELLO
            | {"model": "model", "max_tokens": 5, "tools": [{"name": "f", "input_schema": {"enum": [mark]}}]},
        }[path]
        content = json.dumps(fields | {"stream": True, "unknown": [mark]}).encode()
        del tool, fields

        def left() -> int:
            gc.collect()
            return sum(type(one) is list and one == [mark] for one in gc.get_objects())

        async with serving() as served:
            served.triton.inputs = served.triton.inputs | {"guided_decoding_guide"}

            async def script(call: Call) -> AsyncIterator[Any]:
                yield reply("on and on")
                await call.stopped.wait()

            served.triton.script = script
            async with served.http.stream("POST", path, content=content) as response:
                async for line in response.aiter_lines():
                    if "on and on" in line:
                        break
                assert response.status_code == 200
                assert left() == 0

    @pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/tokenize"])
    async def test_nothing_stays_reserved(self, path: str) -> None:
        body: dict[str, Any] = {
            "/v1/responses": {"input": "a" * SIZE},
            "/v1/messages": LARGE | {"model": "model", "max_tokens": 5},
            "/tokenize": {"prompt": "a" * SIZE},
        }[path]
        async with serving(max_request_memory=ROOM) as served:
            for _ in range(3):
                assert (await served.http.post(path, json=body)).status_code == 200
            assert (await served.http.post(path, content=b"x" * SIZE)).status_code == 400
            assert memory_of(served).held == 0

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_slow_uploads_hold_what_they_reserved_and_others_get_a_503(self, chunked: bool) -> None:
        async with serving(max_request_memory=ROOM, max_body_bytes=SIZE + 1000, body_timeout=2.0) as served:
            host, port = served.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {SIZE}"
            writer.write(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
            begun = b"{" * (FREE + 10_000)
            writer.write(b"%x\r\n%s\r\n" % (len(begun), begun) if chunked else begun)
            await until(lambda: memory_of(served).held > 0)
            assert (await served.chat()).status_code == 200
            # The slow one gets its error after its time limit, and what it held is free again: the other one is served or refused.
            other = await served.http.post(CHAT, json=LARGE)
            assert other.status_code == 200 or other.json()["error"]["code"] == "overloaded"
            assert b" 408 " in await asyncio.wait_for(reader.readline(), WAIT)
            writer.close()
            await until(lambda: memory_of(served).held == 0)

    @pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
    async def test_a_client_that_leaves_while_its_body_waits_gives_up_its_place(
        self, reset: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The rest of its body, which nobody reads, is in front of the end of its connection."""
        async with serving(max_request_memory=ROOM, body_timeout=WAIT) as served:
            memory, app = memory_of(served), served.server.app
            held = await memory.acquire(ROOM)
            host, port = served.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {10 * SIZE}\r\n\r\n"
            writer.write(head.encode() + b" " * SIZE)
            await until(lambda: len(memory._queue) == 1)
            if reset:
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort() if reset else writer.close()
            began = asyncio.get_running_loop().time()
            await until(lambda: not memory._queue)
            assert asyncio.get_running_loop().time() - began < 2.0
            await until(lambda: app.state.service.admission._catalog.alone.slots.admitted == 0)
            memory.release(held)
            assert memory.held == 0
            assert (await served.http.post(CHAT, json=LARGE)).status_code == 200
        assert [record for record in caplog.records if record.levelname == "ERROR"] == []

    async def test_many_chunked_bodies_of_a_small_size(self) -> None:
        """Their size is not known beforehand; once it is, they hold room for no more."""
        async with serving() as served:
            go_on = asyncio.Event()

            async def script(call: Call) -> AsyncIterator[Any]:
                await go_on.wait()
                yield finish(text="done")

            async def parts() -> AsyncIterator[bytes]:
                yield json.dumps(LARGE).encode()

            served.triton.script = script
            asked = [asyncio.create_task(served.http.post(CHAT, content=parts())) for _ in range(12)]
            await until(lambda: len(served.triton.calls) == 12)
            assert memory_of(served).held < 12 * (PARSED + SENT + 1) * (SIZE + 1000)
            go_on.set()
            assert {one.status_code for one in await asyncio.gather(*asked)} == {200}
            assert memory_of(served).held == 0

    async def test_a_small_chunked_body_reserves_nothing(self) -> None:
        async with serving(max_request_memory=ROOM) as served:
            memory = memory_of(served)
            reserved: list[int] = []
            acquire = memory.acquire

            async def noted(size: int) -> int:
                reserved.append(size)
                return await acquire(size)

            memory.acquire = noted

            async def parts() -> AsyncIterator[bytes]:
                yield json.dumps(HELLO).encode()

            assert (await served.http.post(CHAT, content=parts())).status_code == 200
            assert reserved == []

    @pytest.mark.parametrize(
        "failing",
        [failure("something failed"), reply(final=True, error=RequestError("It is too long").encode())],
        ids=["in-triton", "in-a-model"],
    )
    @pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
    async def test_a_request_that_fails_leaves_nothing_to_the_garbage_collector(self, path: str, failing: Any) -> None:
        body: dict[str, Any] = {
            CHAT: HELLO,
            "/v1/completions": {"prompt": "Hi"},
            "/v1/responses": {"input": "Hi"},
            "/v1/messages": HELLO | {"model": "model", "max_tokens": 5},
        }[path]
        async with serving() as served:

            async def script(call: Call) -> AsyncIterator[Any]:
                yield failing

            def left() -> int:
                return sum(isinstance(one, Generation | Plan | HeldMemory) for one in gc.get_objects())

            served.triton.script = script
            gc.collect()
            before = left()
            gc.disable()
            try:
                assert (await served.http.post(path, json=body)).status_code in (400, 500)
                await until(lambda: left() == before)
            finally:
                gc.enable()

    async def test_many_choices_of_a_large_prompt(self) -> None:
        """Each choice carries the whole prompt; a first prompt that is small does not hide it."""
        async with serving() as served:
            body = {"prompt": ["a", "b" * 3_000_000], "n": 100}
            response = await served.http.post("/v1/completions", json=body)
            assert (response.status_code, response.json()["error"]["param"]) == (400, "n")
            assert served.triton.calls == [] and memory_of(served).held == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_fetched_pictures_are_counted() -> None:
    sizes: list[int] = []

    images = ImageFetcher(Settings(image_private_hosts=True))
    try:
        async with web(pixels) as server:
            urls = [f"http://127.0.0.1:{server.port}/", "data:,pixels"]
            assert await images.fetch(urls, sizes.append) == (b"pixels",) * 2
        assert sum(sizes) == 6, "what is in a body has room there"
    finally:
        await images.close()
