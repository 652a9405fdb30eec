# SPDX-License-Identifier: Apache-2.0
"""A minimal HTTP server on loopback, a resolver with a table of names, and image fetchers that use them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from common.errors import RequestError
from frontend.images import ImageFetcher
from frontend.settings import Settings

WAIT = 10.0  # seconds that nothing in these tests may take
Reply = Callable[["Web", str, asyncio.StreamWriter], Awaitable[None]]


class Web:
    """A minimal HTTP server on loopback. heads: received request lines and headers. open: number of open connections."""

    def __init__(self, reply: Reply) -> None:
        self.heads: list[dict[str, str]] = []
        self.open = 0
        self.readers: dict[asyncio.StreamWriter, asyncio.StreamReader] = {}
        self.port = 0
        self._reply = reply

    @property
    def paths(self) -> list[str]:
        return [head["path"] for head in self.heads]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.readers[writer] = reader
        try:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
            self.heads.append(headers | {"path": lines[0].split()[1]})
            await self._reply(self, lines[0].split()[1], writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def all_closed(self) -> None:
        async with asyncio.timeout(WAIT):
            while self.open:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def web(reply: Reply, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Web]:
    one = Web(reply)
    server = await asyncio.start_server(one.handle, host, 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    async with server:
        yield one


def response(body: bytes = b"pixels", status: int = 200, **headers: str) -> bytes:
    fields = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + body


async def pixels(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(response())


def names(**table: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """A resolver that knows only these names, which are written with `_` for `.`."""

    async def resolve(host: str, port: int) -> list[str]:
        try:
            return table[host.replace(".", "_")]
        except KeyError:
            raise OSError("unknown") from None

    return resolve


@asynccontextmanager
async def fetchers(**defaults: Any) -> AsyncIterator[Callable[..., ImageFetcher]]:
    """A factory of fetchers: takes a resolver, if any, and fields of Settings that override the defaults."""
    made: list[ImageFetcher] = []

    def make(*resolve: Any, **settings: Any) -> ImageFetcher:
        made.append(ImageFetcher(Settings(**(defaults | settings)), *resolve))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def refused(fetcher: ImageFetcher, *urls: str) -> str:
    with pytest.raises(RequestError) as caught:
        await asyncio.wait_for(fetcher.fetch(urls), WAIT)
    assert (caught.value.param, caught.value.kind) == ("messages", "invalid_request")
    return caught.value.message
