# SPDX-License-Identifier: Apache-2.0
"""Requests that end early: a disconnect, a timeout, a broken stream to Triton, a shutdown, a full server."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator

import httpx
import pytest

from frontend.server import Server, shared_socket
from frontend.settings import Settings
from tests.fakes.fake_triton import Call, FakeTriton, finish, reply, silence
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


SETTINGS = {"max_in_flight": 3, "max_queued": 0}


async def endless(call: Call) -> AsyncIterator:
    while not call.stopped.is_set():
        yield reply("on and ")
        await asyncio.sleep(0.01)
    yield finish("cancelled")


async def leave(served: Serving, body: dict, *, after: bytes = b"") -> None:
    """Post a chat over a bare connection, read until `after` has come, hang up once Triton has the request."""
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(HELLO | body).encode()
    writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(data), data))
    async with asyncio.timeout(WAIT):
        if after:
            await reader.readuntil(after)
        while not served.triton.calls:
            await asyncio.sleep(0.01)
    writer.close()


async def idle(served: Serving) -> bool:
    """Wait until no request is in flight."""
    async with asyncio.timeout(WAIT):
        while 'triton_chat_in_flight{model="model"} 0.0' not in (await served.http.get("/metrics")).text:
            await asyncio.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("body", "script", "after"),
    [
        pytest.param({"stream": True}, endless, b"on and", id="streamed"),
        pytest.param({"stream": True}, silence, b"", id="before-the-first-event"),
        pytest.param({}, endless, b"", id="whole"),
        pytest.param({}, silence, b"", id="whole-before-the-first-event"),
        pytest.param({"n": 3, "stream": True}, endless, b"on and", id="three-choices"),
    ],
)
async def test_a_disconnect_stops_the_engine(served: Serving, body: dict, script: object, after: bytes) -> None:
    served.triton.script = script
    await leave(served, body, after=after)
    await served.stopped()
    await idle(served)


async def test_no_stream_stays_open_on_an_engine(served: Serving) -> None:
    """Triton would keep the engine in memory after it is unloaded."""
    served.triton.script = endless
    await leave(served, {"stream": True}, after=b"on and")
    await served.stopped()
    await idle(served)
    async with asyncio.timeout(WAIT):
        while any("tensorrt_llm" in carried for carried in served.triton.open_streams):
            await asyncio.sleep(0.02)
    assert any("ensemble" in carried for carried in served.triton.open_streams)


async def test_a_stop_is_repeated_until_the_engine_has_the_request(served: Serving) -> None:
    served.triton.stops_needed = 3
    served.triton.script = endless
    await leave(served, {"stream": True}, after=b"on and")
    async with asyncio.timeout(WAIT):
        await served.triton.calls[0].stopped.wait()
    request_id = served.triton.calls[0].id
    assert served.triton.stops.count(request_id) == 3
    # Once the answer has ended, nothing more is sent.
    await asyncio.sleep(0.5)
    assert served.triton.stops.count(request_id) == 3


async def test_a_stop_is_repeated_without_any_response(served: Serving) -> None:
    served.triton.stops_needed = 2
    served.triton.script = silence
    await leave(served, {})
    async with asyncio.timeout(WAIT):
        await served.triton.calls[0].stopped.wait()
    assert served.triton.stops.count(served.triton.calls[0].id) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_timeout(served: Serving, stream: bool) -> None:
    served.triton.script = silence
    headers = {"X-Request-Timeout": "0.1"}
    response = await served.http.post(CHAT, json=HELLO | {"stream": stream}, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
    await served.stopped()


async def test_timeout_in_the_middle_of_a_stream(served: Serving) -> None:
    served.triton.script = endless
    headers = {"X-Request-Timeout": "0.2"}
    response = await served.http.post(CHAT, json=HELLO | {"stream": True}, headers=headers)
    events = [line for line in response.text.split("\n\n") if line]
    assert json.loads(events[-2].removeprefix("data: "))["error"]["code"] == "timeout"
    assert events[-1] == "data: [DONE]"
    await served.stopped()


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "1_0", "inf"])
async def test_an_invalid_timeout_is_refused(served: Serving, value: str) -> None:
    response = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Timeout": value})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "X-Request-Timeout")


async def test_overload(served: Serving) -> None:
    release = asyncio.Event()

    async def script(call: Call) -> AsyncIterator:
        await release.wait()
        yield finish(text="done")

    served.triton.script = script
    waiting = [asyncio.create_task(served.chat()) for _ in range(3)]
    async with asyncio.timeout(WAIT):
        while len(served.triton.calls) < 3:
            await asyncio.sleep(0.01)
    response = await served.chat()
    assert (response.status_code, response.json()["error"]["type"]) == (503, "overloaded_error")
    assert response.headers["retry-after"] == "1"
    release.set()
    assert [(await one).status_code for one in waiting] == [200, 200, 200]
    assert (await served.chat()).status_code == 200


async def test_a_broken_stream_fails_the_requests_in_progress_and_recovers(served: Serving) -> None:
    served.triton.script = silence
    waiting = asyncio.create_task(served.chat())
    async with asyncio.timeout(WAIT):
        while not served.triton.calls:
            await asyncio.sleep(0.01)
    await served.triton.restart()
    response = await waiting
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    served.reset()
    async with asyncio.timeout(WAIT):
        while (await served.chat()).status_code != 200:
            await asyncio.sleep(0.05)


async def test_without_triton() -> None:
    async with serving() as served:
        await served.triton.stop()
        response = await served.chat()
        assert (response.status_code, response.json()["error"]["code"]) == (503, "unavailable")
        ready = await served.http.get("/health/ready")
        assert (ready.status_code, ready.json()["not_ready"][0]) == (503, "triton")
        await served.triton.start(served.triton.port)
        async with asyncio.timeout(WAIT):
            while (await served.chat()).status_code != 200:
                await asyncio.sleep(0.05)


async def start_process(triton: FakeTriton, port: int, grace: float) -> asyncio.subprocess.Process:
    flags = ["--port", str(port), "--triton-url", f"127.0.0.1:{triton.port}", "--grace-period", str(grace)]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "frontend", *flags, "--log-level", "error")
    async with asyncio.timeout(WAIT), httpx.AsyncClient() as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/health/live")).status_code == 200:
                    return process
            except httpx.TransportError:
                await asyncio.sleep(0.05)


def free_port() -> int:
    with shared_socket("127.0.0.1", 0) as listening:
        return int(listening.getsockname()[1])


async def test_sigterm_lets_requests_finish_then_cancels_the_rest() -> None:
    triton = FakeTriton()
    await triton.start()
    port = free_port()
    go_on = asyncio.Event()

    async def script(call: Call) -> AsyncIterator:
        if call.messages["messages"][0]["content"] == "brief":
            await go_on.wait()
            yield finish(text="done")
            return
        async for one in endless(call):
            yield one

    triton.script = script
    process = await start_process(triton, port, grace=1)
    try:
        url = f"http://127.0.0.1:{port}{CHAT}"
        async with asyncio.timeout(WAIT), httpx.AsyncClient(timeout=WAIT) as http:
            brief = asyncio.create_task(http.post(url, json={"messages": [{"role": "user", "content": "brief"}]}))
            long = asyncio.create_task(http.post(url, json=HELLO | {"stream": True}))
            while len(triton.calls) < 2:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            go_on.set()
            assert (await brief).json()["choices"][0]["message"]["content"] == "done"
            assert '"code":"unavailable"' in (await long).text
            assert await process.wait() == 0
        assert len(set(triton.stops)) == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await triton.stop()


ENDPOINTS: dict[str, tuple[dict, str]] = {
    CHAT: (HELLO, '"code":"unavailable"'),
    "/v1/completions": ({"prompt": "Hi"}, '"code":"unavailable"'),
    "/v1/responses": ({"input": "Hi"}, "event: response.failed"),
    "/v1/messages": (HELLO | {"model": "model", "max_tokens": 100}, "event: error"),
}


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_a_stream_that_exceeds_the_grace_period_ends_with_an_error(path: str) -> None:
    """The stream says what happened, and ends as HTTP wants it: httpx fails for one that is cut off."""
    body, error = ENDPOINTS[path]
    async with serving(grace_period=0.2) as served:
        served.triton.script = endless
        async with served.http.stream("POST", path, json=body | {"stream": True}) as response:
            lines = response.aiter_lines()
            while "on and" not in await anext(lines):
                pass
            served.server.should_exit = True
            rest = [line async for line in lines]
        assert error in "\n".join(rest) and "shutting down" in "\n".join(rest)
        await served.stopped()


async def test_requests_are_served_in_the_delay_before_a_shutdown() -> None:
    async with serving(shutdown_delay=WAIT) as served:
        served.server.should_exit = True
        async with asyncio.timeout(WAIT):
            while (ready := await served.http.get("/health/ready")).status_code == 200:
                await asyncio.sleep(0.01)
        assert ready.json()["not_ready"] == ["frontend"]
        response = await served.chat()
        assert response.json()["choices"][0]["message"]["content"] == "Hello world"
        # Whoever is in a hurry does not wait for it.
        served.server.force_exit = True


@pytest.mark.parametrize(("before", "drains"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
async def test_the_end_of_a_terminal_drains_except_under_nohup(before: signal.Handlers, drains: bool) -> None:
    server = Server(Settings())
    found = signal.signal(signal.SIGHUP, before)
    try:
        with server.capture_signals():
            assert (signal.getsignal(signal.SIGHUP) == server.handle_exit) is drains
        assert signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, found)


async def start_times(port: int) -> set[str]:
    """Return the start times of the processes behind a port that answer twenty new connections."""
    seen: set[str] = set()
    for _ in range(20):
        async with httpx.AsyncClient(timeout=WAIT) as http:
            text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
        seen.add(next(line for line in text.splitlines() if line.startswith("process_start_time_seconds ")))
    return seen


async def test_two_processes_share_a_port() -> None:
    triton = FakeTriton()
    await triton.start()
    port = free_port()
    processes = [await start_process(triton, port, grace=1) for _ in range(2)]
    try:
        # The second one may need long to start on a busy machine.
        async with asyncio.timeout(WAIT):
            while len(await start_times(port)) < 2:
                await asyncio.sleep(0.05)
        processes[0].terminate()
        assert await asyncio.wait_for(processes[0].wait(), WAIT) == 0
        async with httpx.AsyncClient(timeout=WAIT) as http:
            assert (await http.post(f"http://127.0.0.1:{port}{CHAT}", json=HELLO)).status_code == 200
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
        await triton.stop()
