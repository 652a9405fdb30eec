# SPDX-License-Identifier: Apache-2.0
"""Upgrades that lose no request: frontends are replaced one after the other behind a real HAProxy, under load.

A frontend and its fake Triton stand for a stack; that launchers do the same is shown by `python -m tests.soak upgrades`.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from frontend.auth.keys import digest
from tests.fakes.fake_triton import Call, FakeTriton, finish, reply
from tests.support.balancer import LIMIT_S, Balancer, balancer, free_port, until
from tests.support.steady_load import SteadyLoad

# Many times what HAProxy needs to notice it: two checks, one each 0.1 s.
SHUTDOWN_DELAY_S = 2
WORDS = 10
CLIENTS = 8


async def counting(call: Call) -> AsyncIterator[Any]:
    """Answer with the numbers that follow the one in the request."""
    first = int(call.messages["messages"][0]["content"])
    for number in range(first, first + WORDS):
        await asyncio.sleep(0.02)
        yield reply(f"{number} ")
    yield finish(completion=WORDS)


class Version:
    """A frontend in a process of its own, in front of one fake Triton. flags: of the frontend."""

    def __init__(self, triton: FakeTriton, port: int, *flags: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port, self._more = port, flags
        self._flags = ["--triton-url", f"127.0.0.1:{triton.port}", "--port", str(port), *flags]
        self._process: asyncio.subprocess.Process | None = None

    def with_triton(self, triton: FakeTriton) -> "Version":
        """Another version at the same address."""
        return Version(triton, self._port, *self._more)

    async def listens(self) -> bool:
        """Whether it answers, ready or not."""
        return await self._status("/health/live") == 200

    async def takes(self, key: str) -> bool:
        """Whether it takes an API key."""
        return await self._status("/v1/models", key) == 200

    async def refuses(self, key: str) -> bool:
        """Whether it refuses an API key."""
        return await self._status("/v1/models", key) == 401

    async def _status(self, path: str, key: str = "none") -> int | None:
        try:
            async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=LIMIT_S) as http:
                return (await http.get(path, headers={"Authorization": f"Bearer {key}"})).status_code
        except httpx.TransportError:
            return None

    async def start(self) -> None:
        command = (sys.executable, "-m", "frontend", *self._flags, "--log-level", "error")
        self._process = await asyncio.create_subprocess_exec(*command, env=os.environ)

    async def stop(self) -> None:
        """Stop it as an operator does; it must end by itself, in good order."""
        assert self._process is not None
        self._process.terminate()
        assert await asyncio.wait_for(self._process.wait(), LIMIT_S) == 0

    async def kill(self) -> None:
        """End it if it runs."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def load(url: str, key: Callable[[], str] = lambda: "none") -> SteadyLoad:
    def answer(number: int) -> str:
        return "".join(f"{number + i} " for i in range(WORDS))

    return SteadyLoad(url, CLIENTS, str, answer, key)


@asynccontextmanager
async def two_stacks(folder: Path, *flags: str) -> AsyncIterator[tuple[Balancer, list[Version]]]:
    """Two running frontends behind a balancer. flags: of both."""
    triton = FakeTriton()
    triton.script = counting
    await triton.start()
    ports = [free_port(), free_port()]
    flags = ("--shutdown-delay", str(SHUTDOWN_DELAY_S), "--grace-period", "60", *flags)
    stacks = [Version(triton, port, *flags) for port in ports]
    try:
        for stack in stacks:
            await stack.start()
        async with balancer(folder, [f"127.0.0.1:{port}" for port in ports]) as running:
            for number in (1, 2):
                await running.until_considers(number, "UP")
            yield running, stacks
    finally:
        for stack in stacks:
            await stack.kill()
        await triton.stop()


async def test_a_rolling_restart_loses_nothing(tmp_path: Path) -> None:
    async with two_stacks(tmp_path) as (running, stacks), load(running.url).running() as asking:
        await asking.several()
        for number, stack in enumerate(stacks, 1):
            await stack.stop()
            await running.until_considers(number, "DOWN")
            await stack.start()
            await running.until_considers(number, "UP")
            await asking.several()
    assert asking.ends.keys() == {"right"}


async def test_a_new_version_that_cannot_serve_leaves_the_old_one_serving(tmp_path: Path) -> None:
    async with two_stacks(tmp_path) as (running, (kept, replaced)), load(running.url).running() as asking:
        await asking.several()
        await replaced.stop()
        # Its Triton has models, of which one cannot be loaded; the old version's is another one.
        broken = FakeTriton()
        broken.unready = {"tensorrt_llm"}
        await broken.start()
        new = replaced.with_triton(broken)
        try:
            await new.start()
            await until(new.listens)
            for _ in range(3):
                await asking.several()
                assert await running.considers(2, "DOWN")
        finally:
            await new.kill()
            await broken.stop()
        assert broken.calls == []
        # Back to the version that worked.
        await replaced.start()
        await running.until_considers(2, "UP")
        await kept.stop()
        await asking.several()
    assert asking.ends.keys() == {"right"}


async def test_api_keys_change_while_requests_are_served(tmp_path: Path) -> None:
    """A key is added, clients move to it, and the old one is removed: first the new line, then the file replaced."""
    file, new_file = tmp_path / "keys.txt", tmp_path / "new.txt"
    old, new = (f"alice {digest('old').hex()}\n", f"alice-2 {digest('new').hex()}\n")
    file.write_text(old)
    sent = "old"

    async with (
        two_stacks(tmp_path, "--api-keys-file", str(file)) as (_, stacks),
        load(stacks[0].url, lambda: sent).running() as first,
        load(stacks[1].url, lambda: sent).running() as second,
    ):
        with file.open("a") as end:
            end.write(new)
        for stack in stacks:
            await until(partial(stack.takes, "new"))
        sent = "new"
        # Those that began with the old key have ended.
        await first.several()
        await second.several()
        new_file.write_text(new)
        new_file.replace(file)
        for stack in stacks:
            await until(partial(stack.refuses, "old"))
        await first.several()
        await second.several()
    assert first.ends.keys() == second.ends.keys() == {"right"}
