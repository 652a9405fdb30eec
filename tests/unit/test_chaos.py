# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak chaos` in short: its clients tell right answers from wrong ones, and frontends are disturbed."""

import asyncio
import json
import os
import re
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from scripts.launcher.child_process import ChildProcess
from scripts.launcher.readiness import answers_ok
from tests.fakes.fake_triton import Call, FakeTriton, Served, failure, finish, reply
from tests.fakes.frontend_server import WAIT, serving
from tests.soak.chaos.clients import Clients
from tests.soak.chaos.disturbances import Disturber
from tests.soak.chaos.known_answers import story
from tests.soak.chaos.result import ChaosResult
from tests.soak.chaos.run import run_chaos
from tests.support.waiting import wait_until


async def right(call: Call) -> AsyncIterator[Any]:
    """What the scripted engine says."""
    kind, number = prompted(call)
    if kind == "tool":
        arguments = json.dumps({"number": f"{number:02}"})
        yield reply(
            tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]
        )
        yield reply(tool_calls=[{"index": 0, "function": {"arguments": arguments}}])
        yield finish("tool_calls")
        return
    for word in re.findall(r"\S+\s*", story(number) if kind == "story" else "pong"):
        yield reply(word)
    yield finish()


async def wrong(call: Call) -> AsyncIterator[Any]:
    """The same with a word that was lost."""
    kind, number = prompted(call)
    yield reply(story(number).replace("n1", "", 1) if kind == "story" else "")
    yield finish()


async def failing(call: Call) -> AsyncIterator[Any]:
    """Half an answer and an error."""
    kind, number = prompted(call)
    if kind == "story":
        yield reply(story(number)[:9])
    yield failure("an engine that fails")


def prompted(call: Call) -> tuple[str, int]:
    found = re.search(r"(?:tell|call) (story|tool) (\d+)", call.inputs["messages"][0].decode())
    return (found[1], int(found[2])) if found else ("ping", 0)


async def load(script: Any) -> ChaosResult:
    """Some requests of all kinds."""
    triton, result = FakeTriton(), ChaosResult()
    triton.script = script
    triton.served["embedder"] = Served("embedder.", {"kind": "embedding", "names": ["embedder"]})
    async with serving(triton) as one:
        clients = Clients(one.url, "0", result, text="model", seeing="model", embedding="embedder")
        await clients.run(4, lambda: result.requests >= 40, lambda: "nothing")
    return result


async def test_right_answers() -> None:
    result = await load(right)
    assert result.wrong == []
    assert set(result.ends) == {"ok", "aborted"}


async def test_wrong_answers() -> None:
    assert (await load(wrong)).ends["wrong"] > 10


async def test_errors_are_counted_by_kind() -> None:
    result = await load(failing)
    assert result.wrong == []
    assert {"500 internal_error", "in a stream: internal_error", "ok"} <= set(result.ends)


class Frontends:
    """Two frontends of one port in front of a fake Triton, restarted as the launcher does it."""

    def __init__(self, folder: Path, triton: FakeTriton) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        names = {"PORT": str(port), "TRITON_URL": f"127.0.0.1:{triton.port}", "SERVED_MODEL_NAME": "model"}
        settings = {f"TRITON_CHAT_{name}": value for name, value in names.items()}
        environment = os.environ | settings | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "frontend"]
        self.parts = [
            ChildProcess(name, command, environment, folder / f"{name}.log") for name in ("frontend-1", "frontend-2")
        ]

    def restart_dead(self) -> None:
        for index, part in enumerate(self.parts):
            if part.exit_status() is not None:
                part.stop(0.0)
                self.parts[index] = part.restart()


def test_frontends_amid_chaos(tmp_path: Path) -> None:
    """Whatever happens to frontends, what is answered is right, and their metrics tell that nothing is left."""
    triton, result = FakeTriton(), ChaosResult()
    triton.script = right
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    asyncio.run_coroutine_threadsafe(triton.start(), loop).result(WAIT)
    stack: Any = Frontends(tmp_path, triton)
    try:
        wait_until(lambda: answers_ok(f"{stack.url}/health/ready"), "a frontend serves")
        weights = {"kill frontend": 2, "stop frontend": 1, "full-disk frontend": 1, "starve frontend": 1}
        disturber = Disturber(stack, "1", result, weights)
        run_chaos(
            stack, Clients(stack.url, "1", result, text="model"), disturber, 8.0, concurrency=4, pause_s=(0.5, 2.0)
        )
        wait_until(lambda: stack.restart_dead() or answers_ok(f"{stack.url}/health/ready"), "a frontend serves again")
        wait_until(lambda: in_flight(stack.url) == 0, "nothing is in flight")
    finally:
        for part in stack.parts:
            part.stop(0.0)
        asyncio.run_coroutine_threadsafe(triton.stop(), loop).result(WAIT)
        loop.call_soon_threadsafe(loop.stop)
    assert (result.wrong, result.hangs) == ([], 0)
    assert result.ends["ok"] > 0 and result.disturbances.total() > 0
    assert set(result.ends) <= {"ok", "aborted", "connection lost", "in a stream: connection lost", "503 unavailable"}


def in_flight(url: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=WAIT).raise_for_status().text
    return sum(float(value) for value in re.findall(r"^triton_chat_in_flight\{.*\} (\S+)$", text, re.MULTILINE))
