# SPDX-License-Identifier: Apache-2.0
"""Requests whose clients disconnect at random points, over raw connections that are reset."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

# When a request is aborted, and how often in relation to the others.
WAYS = {
    "at once": 2,
    "half a body": 1,
    "before an answer": 4,
    "in a stream": 6,
    "in a whole answer": 4,
    "at a deadline": 2,
    "fetching an image": 1,
}
MAX_WAIT_S = 60.0


class Aborter:
    """Sends requests to one server and aborts them in all of these ways. tokens: length of an answer that is not aborted."""

    def __init__(self, url: str, model: str, tokens: int, seed: int) -> None:
        self._address = urlsplit(url)
        self._model = model
        self._tokens = tokens
        self._random = random.Random(seed)  # nosec B311 # no secret is drawn
        self.counts: Counter[str] = Counter()

    async def run(self, count: int, concurrency: int, progress: Callable[[int], None] = lambda done: None) -> None:
        """Abort `count` requests, `concurrency` at once; calls `progress` with the number of finished ones."""
        async with _silent_server() as port:
            left, done = iter(range(count)), 0

            async def worker() -> None:
                nonlocal done
                for _ in left:
                    way = self._random.choices(list(WAYS), list(WAYS.values()))[0]
                    async with asyncio.timeout(MAX_WAIT_S):
                        await self._one(way, port)
                    done += 1
                    progress(done)

            await asyncio.gather(*[worker() for _ in range(concurrency)])

    async def _one(self, way: str, image_port: int) -> None:
        content: object = "Tell me a very long story."
        if way == "fetching an image":
            url = f"http://127.0.0.1:{image_port}/image.png"
            content = [{"type": "image_url", "image_url": {"url": url}}]
        body = {"model": self._model, "messages": [{"role": "user", "content": content}], "max_tokens": self._tokens}
        body |= {"ignore_eos": True, "stream": way == "in a stream" or self._random.random() < 0.5}
        data = json.dumps(body).encode()
        deadline = self._random.uniform(0.02, 0.6)
        headers = f"X-Request-Timeout: {deadline:.3f}\r\n" if way == "at a deadline" else ""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        try:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(data)}\r\n\r\n"
            writer.write(head.encode() + (data[: len(data) // 2] if way == "half a body" else data))
            await writer.drain()
            self.counts[await self._leave(way, reader)] += 1
        finally:
            writer.transport.abort()

    async def _leave(self, way: str, reader: asyncio.StreamReader) -> str:
        """Wait as the way requires; returns its name, or the status of an answer that came earlier."""
        if way in ("at once", "half a body"):
            return way
        if way == "at a deadline":
            return f"{way}: {await _status(reader)}"
        if way != "in a stream":
            try:
                return await asyncio.wait_for(_status(reader), self._random.uniform(0.0, 0.8))
            except TimeoutError:
                return way
        status = await _status(reader)
        if status != "200":
            return status
        for _ in range(self._random.randint(1, 40)):
            if not await reader.readline():
                break
        return way


async def _status(reader: asyncio.StreamReader) -> str:
    return (await reader.readline()).decode().split(" ")[1]


@asynccontextmanager
async def _silent_server() -> AsyncIterator[int]:
    """A port that accepts connections and never answers."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
