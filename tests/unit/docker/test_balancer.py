# SPDX-License-Identifier: Apache-2.0
"""docker/haproxy in a real HAProxy before two small servers: streams, health, hidden metrics, clients that leave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.support.balancer import LIMIT_S, Balancer, balancer, free_port, until


class Stack:
    """A server that says whether it is ready, and streams an event each time the test asks for one."""

    def __init__(self, name: str) -> None:
        self.name, self.ready = name, True
        self.go_on: asyncio.Queue[bytes] = asyncio.Queue()
        self.streams, self.left = 0, asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /health/ready"):
            status = b"200 OK" if self.ready else b"503 Service Unavailable"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        elif head.startswith(b"POST /v1/chat"):
            await self._stream(reader, writer)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.streams += 1
        head = (
            f"HTTP/1.1 200 OK\r\nX-Stack: {self.name}\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        gone = asyncio.create_task(reader.read())
        while not gone.done():
            more = asyncio.create_task(self.go_on.get())
            await asyncio.wait({more, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not more.done():
                more.cancel()
            elif more.result():
                writer.write(b"data: " + more.result() + b"\n\n")
                await writer.drain()
            else:
                gone.cancel()
                break
        else:
            self.left.set()
        self.streams -= 1


@asynccontextmanager
async def balanced(folder: Path) -> AsyncIterator[tuple[Balancer, list[Stack]]]:
    """An HAProxy with the real configuration and the two servers behind it."""
    stacks = [Stack("1"), Stack("2")]
    servers = [await asyncio.start_server(stack.answer, "127.0.0.1", 0) for stack in stacks]
    try:
        addresses = [f"127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers]
        async with balancer(folder, addresses) as running:
            yield running, stacks
    finally:
        for server in servers:
            server.close()


async def test_the_balancer(tmp_path: Path) -> None:
    async with (
        balanced(tmp_path) as (running, stacks),
        httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=LIMIT_S) as client,
    ):
        hidden = [
            await client.get(path) for path in ("/metrics", "/metrics/vllm", f"{running.url}//metrics", "/%6detrics")
        ]
        assert {one.status_code for one in hidden} == {404}

        # Each event comes through at once: the next is only sent when the last has arrived.
        async with client.stream("POST", "/v1/chat/completions", json={}) as first:
            lines, one = first.aiter_lines(), stacks[int(first.headers["X-Stack"]) - 1]
            for text in (b"a", b"b", b"c"):
                one.go_on.put_nowait(text)
                assert await anext(lines) == f"data: {text.decode()}"
                assert await anext(lines) == ""

            # The other stack has no stream: it gets the next one.
            async with client.stream("POST", "/v1/chat/completions", json={}) as second:
                other = stacks[int(second.headers["X-Stack"]) - 1]
                assert other is not one
            # Its client disconnected; the stack notices.
            await asyncio.wait_for(other.left.wait(), LIMIT_S)

            # One that drains gets nothing new and keeps its stream to the end.
            one.ready = False

            await running.until_considers(int(one.name), "DOWN")
            for _ in range(4):
                async with client.stream("POST", "/v1/chat/completions", json={}) as third:
                    assert third.headers["X-Stack"] == other.name
            one.go_on.put_nowait(b"last")
            assert await anext(lines) == "data: last"
            one.go_on.put_nowait(b"")
            assert [line async for line in lines] == [""]

        # Without any the balancer says so itself.
        other.ready = False

        async def down() -> bool:
            return (await client.get("/health/balancer")).status_code == 503

        await until(down)
        assert (await client.post("/v1/chat/completions", json={})).status_code == 503


def test_free_ports_differ_and_outgoing_connections_get_none_of_them() -> None:
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = [free_port() for _ in range(100)]
    assert len(set(ports)) == 100 and max(ports) < first_ephemeral
