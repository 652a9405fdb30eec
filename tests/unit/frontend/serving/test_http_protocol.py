# SPDX-License-Identifier: Apache-2.0
"""Raw bytes at the frontend's socket: broken framing, smuggling, slow and endless headers, injection through headers."""

import asyncio
import json
import logging
from http import HTTPStatus

import pytest

from frontend.errors import ApiError, error_response
from frontend.serving import http_protocol
from tests.fakes.frontend_server import CHAT, HELLO, WAIT, Serving, serving

HOST = b"Host: x\r\n"
BODY = b'{"messages":[{"role":"user","content":"Hi"}]}'
POST = b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + HOST


async def exchange(served: Serving, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Send the pieces, `pause` seconds apart, and return all that the server sends until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(WAIT):
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(pause)
                return await reader.read()
            except ConnectionError:
                return b""
    finally:
        writer.close()


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


async def still_serves(served: Serving) -> bool:
    return (await served.chat()).status_code == 200


def closing(*headers: bytes, body: bytes = BODY) -> bytes:
    return POST + b"".join(header + b"\r\n" for header in headers) + b"Connection: close\r\n\r\n" + body


SMUGGLED = b"GET /v1/models HTTP/1.1\r\n" + HOST + b"\r\n"
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "request_bytes",
    [
        # Two framings of one body: whoever believes the other one sees a second request.
        closing(LENGTH, CHUNKED, body=b"0\r\n\r\n" + SMUGGLED),
        closing(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
        closing(LENGTH, b"Content-Length: 0", body=SMUGGLED),
        closing(b"Content-Length: 0, %d" % len(BODY), body=SMUGGLED),
        closing(b"Content-Length: +5"),
        closing(b"Content-Length: -1"),
        closing(b"Content-Length: 0x10"),
        closing(b"Content-Length: 99999999999999999999999999"),
        closing(b"Transfer-Encoding: xchunked", body=SMUGGLED),
        closing(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
        closing(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
        closing(b"X: a\r\n folded: b", LENGTH),
        closing(b"X: a\nContent-Length: 0", LENGTH),
        closing(b"X: a\0b", LENGTH),
        closing(b"X y: a", LENGTH),
        closing(CHUNKED, body=b"ffffffffffffffffff\r\n"),
        closing(CHUNKED, body=b"zz\r\n"),
        closing(CHUNKED, body=b"-5\r\nhello\r\n"),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64,
        b"\0" * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"{" * 200 + b"\r\n\r\n",
    ],
)
async def test_broken_framing_is_refused_and_hides_no_second_request(request_bytes: bytes) -> None:
    async with serving() as served:
        answer = await exchange(served, request_bytes)
        assert all(400 <= status < 500 for status in statuses(answer)), answer
        assert len(statuses(answer)) <= 1
        assert b"max_model_len" not in answer
        assert not served.triton.calls
        assert await still_serves(served)


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v1/models/%00 HTTP/1.1",
        b"GET /v1/models/%ff%fe HTTP/1.1",
        b"GET /v1/models/..%2f..%2fetc%2fpasswd HTTP/1.1",
        b"GET /v1/models/../../etc/passwd HTTP/1.1",
        b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
        b"GET /v1/models/" + b"a" * 30_000 + b" HTTP/1.1",
        b"GET /v1/models/a%0d%0aSet-Cookie:%20x=1 HTTP/1.1",
        b"GET //////////v1//models//x HTTP/1.1",
        b"TRACE /v1/models HTTP/1.1",
        b"PROPFIND /v1/models HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"CONNECT example.org:443 HTTP/1.1",
    ],
)
async def test_odd_targets_are_client_errors(line: bytes) -> None:
    async with serving() as served:
        answer = await exchange(served, line + b"\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert len(statuses(answer)) == 1 and 400 <= statuses(answer)[0] < 500, answer
        head = answer.partition(b"\r\n\r\n")[0].lower()
        assert b"set-cookie" not in head and b"root:" not in answer
        assert await still_serves(served)


@pytest.mark.parametrize(
    "value",
    [b"a\tb", b"<script>", b"a b", b"x" * 129, b"\xc3\xa9", b"%0d%0aSet-Cookie:x", b"id=1;level=ERROR", b"\x7f"],
)
async def test_a_request_id_that_could_forge_a_header_or_a_log_line_is_ignored(
    value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(log_level="info") as served:
        with caplog.at_level(logging.INFO):
            answer = await exchange(served, closing(LENGTH, b"X-Request-Id: " + value))
        assert value not in answer
        assert value.decode("latin-1") not in caplog.text


async def test_endless_headers_are_refused_at_a_limit() -> None:
    async with serving() as served:
        lines = [b"X-%d: %s\r\n" % (i, b"y" * 8000) for i in range(200)]
        assert statuses(await exchange(served, POST, *lines))[:1] in ([431], [])
        assert statuses(await exchange(served, b"GET /" + b"a" * 2_000_000))[:1] in ([431], [])
        assert await still_serves(served)


async def test_a_large_body_does_not_count_as_headers() -> None:
    async with serving() as served:
        chat = HELLO | {"user": "x" * (4 * http_protocol.MAX_HEAD)}
        for _ in range(3):  # On one connection: the count starts again.
            assert (await served.http.post(CHAT, json=chat)).status_code == 200


@pytest.mark.parametrize("pieces", [(), (b"G",), (POST,), (POST, b"X-A: b\r\n")])
async def test_headers_that_do_not_arrive_time_out(pieces: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 0.2)
    async with serving() as served:
        answer = await exchange(served, *pieces)
        assert statuses(answer) == ([408] if pieces else [])


async def test_the_second_request_of_a_connection_times_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 1.0)
    async with serving() as served:
        answer = await exchange(served, POST + LENGTH + b"\r\n\r\n" + BODY, b"GET /heal", pause=0.5)
        assert statuses(answer) == [200, 408]


async def test_the_rest_of_a_refused_body_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "DISCARD_TIMEOUT", 0.5)
    async with serving(max_body_bytes=1000) as served:
        head = POST + b"Content-Length: 5000\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
        async with asyncio.timeout(WAIT):
            writer.write(head)
            # A byte now and then, which would keep a connection that is merely idle-checked.
            answer = asyncio.create_task(reader.read())
            while not answer.done():
                writer.write(b"x")
                await asyncio.wait([answer], timeout=0.1)
        writer.close()
        assert isinstance(answer.exception(), ConnectionError | None)


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        get = b"GET /health/live HTTP/1.1\r\n" + HOST
        answer = await exchange(served, get + b"\r\n" + SMUGGLED + get + b"Connection: close\r\n\r\n")
        assert statuses(answer) == [200, 200, 200]


@pytest.mark.parametrize("kind", ["slow_request", "large_head"])
async def test_an_error_before_the_routes_is_a_whole_response(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 0.2)
    monkeypatch.setattr(http_protocol, "MAX_HEAD", 10)
    pieces = {"slow_request": [b"G"], "large_head": [POST, b"X-A: b\r\n"]}[kind]
    async with serving() as served:
        head, _, body = (await exchange(served, *pieces, pause=0.05)).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    wanted = error_response(ApiError(kind, json.loads(body)["error"]["message"]))
    assert status == f"HTTP/1.1 {wanted.status_code} {HTTPStatus(wanted.status_code).phrase}"
    assert body == wanted.body
    assert sorted(lines) == ["connection: close", f"content-length: {len(body)}", "content-type: application/json"]
