# SPDX-License-Identifier: Apache-2.0
"""docker/haproxy/haproxy.cfg in a real HAProxy, in front of two addresses."""

import asyncio
import os
import random
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from scripts.setup.install_haproxy import ADVICE, find_haproxy
from tests.support.containers import DOCKER

LIMIT_S = 60.0
# Below are the usual ports of services.
LOWEST_PORT = 10_000
_given: set[int] = set()


@dataclass(frozen=True, slots=True)
class Balancer:
    """A running HAProxy. url: of the API. metrics: of its own metrics."""

    url: str
    metrics: str

    async def considers(self, server: int, state: str) -> bool:
        """Whether HAProxy takes a server, 1 or 2, to be UP or DOWN."""
        async with httpx.AsyncClient(trust_env=False, timeout=LIMIT_S) as client:
            text = (await client.get(self.metrics)).text
        sample = rf'server_status\{{proxy="stacks",server="stack-{server}",state="{state}"\}} 1'
        return re.search(sample, text) is not None

    async def until_considers(self, server: int, state: str, seconds: float = LIMIT_S) -> None:
        """Wait until HAProxy takes a server to be UP or DOWN."""
        await until(lambda: self.considers(server, state), seconds)


@asynccontextmanager
async def balancer(folder: Path, addresses: Sequence[str], *, as_shipped: bool = False) -> AsyncIterator[Balancer]:
    """Run HAProxy in front of two addresses, host:port, of which one must be ready or become it.

    as_shipped: the checks are as often as in the file; else often enough for a test. Nothing else but the port differs.
    """
    binary = find_haproxy()
    if binary is None:
        pytest.fail(ADVICE)
    ports = [free_port(), free_port()]
    text = (DOCKER / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    text, moved = re.subn(r"bind :9997", f"bind 127.0.0.1:{ports[0]}", text)
    shipped, often = "check inter 2s fastinter 500ms fall 2 rise 1 slowstart 10s", "check inter 100ms fall 2 rise 1"
    assert moved == text.count(shipped) == 1
    if not as_shipped:
        text = text.replace(shipped, often)
    (folder / "haproxy.cfg").write_text(text)
    environment = {"PATH": os.environ["PATH"], "METRICS_BIND": f"127.0.0.1:{ports[1]}"}
    environment |= {f"STACK_{number}": address for number, address in enumerate(addresses, 1)}
    command = [binary, "-db", "-f", str(folder / "haproxy.cfg")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{ports[0]}"
        await until(lambda: _answers(f"{url}/health/balancer"), 5 * LIMIT_S)
        yield Balancer(url, f"http://127.0.0.1:{ports[1]}/metrics")
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port that nobody listens on, and that no outgoing connection gets while its server restarts."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = range(LOWEST_PORT, first_ephemeral)
    # Random, because other test processes look for ports at the same time.
    for port in random.sample(ports, len(ports)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise OSError(f"no free port of {ports}")


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = LIMIT_S) -> None:
    """Poll until the condition holds; raises TimeoutError after some seconds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False
