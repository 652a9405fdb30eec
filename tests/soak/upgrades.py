# SPDX-License-Identifier: Apache-2.0
"""Two whole stacks behind HAProxy, replaced one after the other under load."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.support.balancer import balancer, free_port
from tests.support.scripted import ENVIRONMENT, SCRIPT, scripted_line
from tests.support.steady_load import SteadyLoad

CLIENTS = 16
WORDS = 60
TOKEN_S = 0.05
TEXT = " ".join(f"word{number}" for number in range(WORDS))
READY_S = 300.0
# As in docker/compose/replicas.yaml.
FLAGS = ("--shutdown-delay", "5", "--grace-period", "30")


class Launcher:
    """`triton-chat serve` with a scripted engine at one address. folder: empty."""

    def __init__(self, tokenizer: Path, folder: Path, port: int) -> None:
        self._line = [*scripted_line("qwen3", tokenizer, folder), *FLAGS, "--port", str(port)]
        (folder / SCRIPT).write_text(json.dumps([{"text": TEXT, "delay_s": TOKEN_S}]), encoding="utf-8")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, engine: str = ENVIRONMENT["TRITON_CHAT_ENGINE"]) -> None:
        """Start it and return at once. engine: the class that plays scripts; one that does not exist fails the start."""
        command = (sys.executable, "-m", "scripts.cli", "serve", *self._line)
        environment = os.environ | {"TRITON_CHAT_ENGINE": engine}
        self._process = await asyncio.create_subprocess_exec(
            *command, env=environment, stderr=asyncio.subprocess.DEVNULL
        )

    async def stop(self) -> None:
        """Stop it as an operator does; raises RuntimeError if it does not end in order."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        if (status := await asyncio.wait_for(self._process.wait(), READY_S)) != 0:
            raise RuntimeError(f"a stack ended with {status}")

    async def ended(self) -> int:
        """Wait until it ends by itself; returns the exit status."""
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), READY_S)


@asynccontextmanager
async def two_launchers(tokenizer: Path, folder: Path) -> AsyncIterator[tuple[list[Launcher], list[int]]]:
    """Two launchers that are starting, and their ports."""
    ports = [free_port(), free_port()]
    async with AsyncExitStack() as stack:
        launchers = []
        for number, port in enumerate(ports, 1):
            (folder / str(number)).mkdir()
            launchers.append(Launcher(tokenizer, folder / str(number), port))
            stack.push_async_callback(launchers[-1].stop)
            await launchers[-1].start()
        yield launchers, ports


async def upgrade(tokenizer: Path, folder: Path, say: Callable[[str], None]) -> None:
    """Replace both stacks, then one by a version that cannot start. Raises RuntimeError if a request was lost."""
    async with two_launchers(tokenizer, folder) as (launchers, ports):
        addresses = [f"127.0.0.1:{port}" for port in ports]
        async with balancer(folder, addresses, as_shipped=True) as running:
            for number in (1, 2):
                await running.until_considers(number, "UP", READY_S)
            load = SteadyLoad(running.url, CLIENTS, lambda _: "Go on.", lambda _: TEXT, max_tokens=1000)
            async with load.running():
                for number, launcher in enumerate(launchers, 1):
                    await load.several()
                    begun = time.monotonic()
                    await launcher.stop()
                    stopped = time.monotonic() - begun
                    await launcher.start()
                    await running.until_considers(number, "UP", READY_S)
                    took = time.monotonic() - begun
                    say(
                        f"stack {number}: stopped in {stopped:.0f} s, ready again {took:.0f} s after SIGTERM; {_ends(load)}"
                    )
                await load.several()
                await launchers[1].stop()
                await launchers[1].start("scripted_engine:NoSuchEngine")
                status = await launchers[1].ended()
                await load.several()
                say(f"a version that cannot start: ended with {status}; {_ends(load)}")
                await launchers[1].start()
                await running.until_considers(2, "UP", READY_S)
                await load.several()
            say(f"all: {_ends(load)}, the longest in {load.longest_s:.1f} s")
            if load.ends.keys() != {"right"}:
                raise RuntimeError(f"requests were lost: {dict(load.ends)}")


def _ends(load: SteadyLoad) -> str:
    right = load.ends["right"]
    return f"{right} answers complete and right, {load.ends.total() - right} not"
