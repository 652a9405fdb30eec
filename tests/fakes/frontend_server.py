# SPDX-License-Identifier: Apache-2.0
"""The real frontend on a free port in front of the fake Triton, in the test's own event loop or in processes."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import uvicorn

from frontend.server import Server, shared_socket
from frontend.settings import Settings
from tests.fakes.fake_triton import FakeTriton, answer_of

WAIT = 60.0  # seconds that nothing in these tests may take

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hi"}]}


@dataclass
class Serving:
    triton: FakeTriton
    server: Server
    url: str
    http: httpx.AsyncClient
    openai: openai.AsyncOpenAI

    def reset(self) -> None:
        """Restore the state after the start, except for connections."""
        self.triton.script = answer_of("Hello", " world")
        self.triton.inputs = FakeTriton().inputs
        self.triton.unready.clear()
        self.triton.stopped_in.clear()
        self.triton.calls.clear()
        self.triton.stops.clear()
        self.triton.stops_needed = 1

    async def chat(self, **fields: Any) -> httpx.Response:
        return await self.http.post(CHAT, json=HELLO | fields)

    async def chunks(self, path: str = CHAT, **fields: Any) -> list[Any]:
        """The events of a streamed answer, without the last one, which must be [DONE]."""
        response = await self.http.post(path, json=(HELLO if path == CHAT else {}) | {"stream": True} | fields)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
        assert events.pop() == "[DONE]"
        return [json.loads(event) for event in events]

    async def stopped(self, choices: Sequence[int] | None = None) -> None:
        """Wait until Triton has got stop requests for all requests of this test, or for those at these positions."""
        calls = self.triton.calls
        at = range(len(calls)) if choices is None else choices

        def is_stopped(choice: int) -> bool:
            # A request may come after the stop of another one.
            return -len(calls) <= choice < len(calls) and calls[choice].id in self.triton.stops

        async with asyncio.timeout(WAIT):
            while not all(map(is_stopped, at)):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(triton: FakeTriton | None = None, **settings: Any) -> AsyncIterator[Serving]:
    """Run a frontend with a fake Triton, this one if it is given. settings: fields of Settings."""
    triton = triton or FakeTriton()
    await triton.start()
    values = {"served_model_name": ("model", "org/model:1"), "log_level": "critical", "grace_period": 0.3} | settings
    server = Server(Settings(triton_url=f"127.0.0.1:{triton.port}", **values))
    try:
        async with _running(server) as url:
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=WAIT)
            async with httpx.AsyncClient(base_url=url, timeout=WAIT) as http, client:
                yield Serving(triton, server, url, http, client)
    finally:
        await triton.stop()


@asynccontextmanager
async def free_server(config: uvicorn.Config) -> AsyncIterator[str]:
    """Run any ASGI application on a free port; yields its base URL."""
    async with _running(uvicorn.Server(config)) as url:
        yield url


@asynccontextmanager
async def _running(server: uvicorn.Server) -> AsyncIterator[str]:
    listening = shared_socket("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with asyncio.timeout(WAIT):
            while not server.started:
                await asyncio.sleep(0.01)
        yield url
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, WAIT)


@dataclass
class FrontendProcess:
    """A frontend in a process of its own."""

    url: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def frontend_processes(
    triton: FakeTriton, count: int, folder: Path, *flags: str
) -> AsyncIterator[list[FrontendProcess]]:
    """Run several frontends as the launcher does, each on a free port. folder: what they share."""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    started: list[FrontendProcess] = []
    try:
        for _ in range(count):
            started.append(await _start_process(triton, environment, *flags))
        yield started
    finally:
        for one in started:
            if one.process.returncode is None:
                one.process.kill()
                await one.process.wait()


async def _start_process(triton: FakeTriton, environment: dict[str, str], *flags: str) -> FrontendProcess:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "frontend", "--port", "0", "--triton-url", f"127.0.0.1:{triton.port}", *flags),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while (found := re.search(r"listening on (\S+)", (await process.stderr.readline()).decode())) is None:
            assert process.returncode is None
    return FrontendProcess(f"http://{found[1]}", process)
