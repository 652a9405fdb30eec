# SPDX-License-Identifier: Apache-2.0
"""Images by http(s): URL: answers of servers, limits, concurrency and cancellation."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.frontend_server import serving
from tests.fakes.web_server import WAIT, Web, fetchers, pixels, refused, response, web


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    async with fetchers(image_private_hosts=True) as make:
        yield make


class TestBodies:
    @pytest.mark.parametrize("status", [204, 400, 403, 404, 500, 503, 304])
    async def test_an_error_status_is_named(self, fetcher: Any, status: int) -> None:
        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(response(b"" if status in (204, 304) else b"secret", status))

        async with web(reply) as server:
            if status == 204:
                assert await fetcher().fetch([f"http://127.0.0.1:{server.port}/"]) == (b"",)
                return
            message = await refused(fetcher(), f"http://127.0.0.1:{server.port}/private")
            assert f"its host answered with status {status}" in message
            assert "secret" not in message and "private" not in message

    @pytest.mark.parametrize("chunked", [False, True])
    async def test_an_endless_body_stops_at_the_limit(self, fetcher: Any, chunked: bool) -> None:
        sent = 0

        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            writer.write(b"HTTP/1.1 200 X\r\n" + (b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"\r\n"))
            while True:
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n" if chunked else b"x" * 4096)
                sent += 4096
                await writer.drain()
                await asyncio.sleep(0)

        async with web(reply) as server:
            images = fetcher(image_max_bytes=100_000)
            assert "larger than 100000 bytes" in await refused(images, f"http://127.0.0.1:{server.port}/")
            await server.all_closed()
            # The kernel's own buffers hold a few megabytes.
            assert sent < 30_000_000

    async def test_the_request_as_a_whole_is_limited(self, fetcher: Any) -> None:
        async with web(pixels) as server:
            urls = [f"http://127.0.0.1:{server.port}/"] * 3
            assert await fetcher(image_total_bytes=18).fetch(urls) == (b"pixels",) * 3
            assert "(image_total_bytes)" in await refused(fetcher(image_total_bytes=17), *urls)

    async def test_compressed_bodies_are_not_decompressed(self, fetcher: Any) -> None:
        bomb = gzip.compress(bytes(10_000_000))

        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(response(bomb, Content_Encoding="gzip"))

        async with web(reply) as server:
            assert await fetcher(image_max_bytes=100_000).fetch([f"http://127.0.0.1:{server.port}/"]) == (bomb,)
            assert server.heads[0]["accept-encoding"] == "identity"

    @pytest.mark.parametrize(
        "answer",
        [
            b"",
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\npix",
            b"HTTP/1.1 200 X\r\nX: " + b"x" * 200_000,
        ],
    )
    async def test_broken_answers(self, fetcher: Any, answer: bytes) -> None:
        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)

        async with web(reply) as server:
            assert "could not be fetched" in await refused(fetcher(), f"http://127.0.0.1:{server.port}/")

    @pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\npix"])
    async def test_a_slow_server(self, fetcher: Any, start: bytes) -> None:
        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(start)
            await asyncio.sleep(WAIT)

        async with web(reply) as server:
            message = await refused(fetcher(image_timeout=0.2), f"http://127.0.0.1:{server.port}/")
            assert "longer than 0.2 s to fetch (image_timeout)" in message

    async def test_a_server_that_sends_slowly(self, fetcher: Any) -> None:
        """The limit is on the whole fetch, not on the pauses between bytes."""

        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 X\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)

        async with web(reply) as server:
            assert "image_timeout" in await refused(fetcher(image_timeout=0.3), f"http://127.0.0.1:{server.port}/")
            await server.all_closed()

    async def test_no_state_is_kept(self, fetcher: Any) -> None:
        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(response(Set_Cookie="id=1; Path=/", Connection="keep-alive"))

        async with web(reply) as server:
            images = fetcher()
            for _ in range(2):
                await images.fetch([f"http://127.0.0.1:{server.port}/"])
            await server.all_closed()
            assert [head.get("cookie") for head in server.heads] == [None, None]

    async def test_proxies_of_the_environment_are_not_used(self, fetcher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        async with web(pixels) as server:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, "http://127.0.0.1:9")
            assert await fetcher().fetch([f"http://127.0.0.1:{server.port}/"]) == (b"pixels",)


class TestConcurrency:
    async def test_images_are_fetched_in_parallel(self, fetcher: Any) -> None:
        """The server answers only when all requests have arrived, and the last request first."""
        everyone = asyncio.Barrier(5)

        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            await everyone.wait()
            await asyncio.sleep(0.05 * (5 - int(path[1:])))
            writer.write(response(path.encode()))

        async with web(reply) as server:
            images = fetcher(image_concurrency=5)
            fetched = await images.fetch([f"http://127.0.0.1:{server.port}/{i}" for i in range(5)])
            assert fetched == tuple(f"/{i}".encode() for i in range(5))

    async def test_concurrency_is_limited(self, fetcher: Any) -> None:
        most = 0

        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            nonlocal most
            most = max(most, server.open)
            await asyncio.sleep(0.03)
            writer.write(response())

        async with web(reply) as server:
            await fetcher(image_concurrency=3).fetch([f"http://127.0.0.1:{server.port}/"] * 10)
            assert most == 3

    async def test_waiting_for_a_slot_does_not_count_as_fetching(self, fetcher: Any) -> None:
        async def reply(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(0.3)
            writer.write(response())

        async with web(reply) as server:
            images = fetcher(image_concurrency=1, image_timeout=1.0)
            assert len(await images.fetch([f"http://127.0.0.1:{server.port}/"] * 5)) == 5

    async def hang(self, server: Web, path: str, writer: asyncio.StreamWriter) -> None:
        if path == "/bad":
            async with asyncio.timeout(WAIT):
                while server.open < 4:
                    await asyncio.sleep(0.01)
            writer.write(response(status=404))
        else:
            await asyncio.sleep(0 if path == "/good" else 60)

    async def test_a_failure_cancels_the_other_fetches(self, fetcher: Any) -> None:
        async with web(self.hang) as server:
            before = asyncio.all_tasks()
            base = f"http://127.0.0.1:{server.port}"
            message = await refused(fetcher(image_timeout=60.0), *[f"{base}/{i}" for i in range(3)], f"{base}/bad")
            assert "image 4: it could not be fetched: its host answered with status 404" in message
            assert not leftover(before)

    async def test_cancelling_the_caller_cancels_all_fetches(self, fetcher: Any) -> None:
        async with web(self.hang) as server:
            before = asyncio.all_tasks()
            urls = [f"http://127.0.0.1:{server.port}/{i}" for i in range(4)]
            fetching = asyncio.create_task(fetcher(image_timeout=60.0, image_concurrency=3).fetch(urls))
            async with asyncio.timeout(WAIT):
                while server.open < 3:
                    await asyncio.sleep(0.01)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            assert not leftover(before)


async def test_a_client_that_disconnects_cancels_all_fetches() -> None:
    async def hang(server: Web, path: str, writer: asyncio.StreamWriter) -> None:
        assert await asyncio.wait_for(server.readers[writer].read(), WAIT) == b"", "the fetching side closes first"

    async with web(hang) as server, serving(image_private_hosts=True, image_timeout=60.0) as served:
        parts = [{"type": "image_url", "image_url": {"url": f"http://127.0.0.1:{server.port}/{i}"}} for i in range(3)]
        asking = asyncio.create_task(served.chat(messages=[{"role": "user", "content": parts}]))
        async with asyncio.timeout(WAIT):
            while server.open < 3:
                await asyncio.sleep(0.01)
        asking.cancel()
        await server.all_closed()
        assert not served.triton.calls


def leftover(before: set[asyncio.Task[Any]]) -> list[asyncio.Task[Any]]:
    """Return the tasks since `before`, without those of the test server."""
    tasks = asyncio.all_tasks() - before
    return [task for task in tasks if "Web.handle" not in repr(task)]
