# SPDX-License-Identifier: Apache-2.0
"""Raw bytes at the frontend's socket: broken framing, smuggling, slow and endless headers, injection through headers."""

import asyncio
import gzip
import json
import logging
import re
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest

from frontend import server
from frontend.errors import ApiError, error_response
from frontend.serving import http_protocol
from tests.fakes.fake_triton import Call, finish, reply
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
        closing(b"Transfer-Encoding: gzip, chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)),
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/2.0\r\n" + HOST + b"\r\n",
        b"GET /v1/models\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Host: y\r\nConnection: close\r\n\r\n",
        b"GET /v1/models HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: a b/c\r\nConnection: close\r\n\r\n",
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


async def test_a_pipelined_body_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The response to an earlier request does not start the time in which the rest of a refused body must come."""
    monkeypatch.setattr(http_protocol, "DISCARD_TIMEOUT", 0.2)
    async with serving() as served:
        first = POST + LENGTH + b"\r\n\r\n" + BODY
        begun = closing(LENGTH, body=BODY[:5])
        assert statuses(await exchange(served, first + begun, BODY[5:], pause=1.0)) == [200, 200]


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as served:
        get = b"GET /health/live HTTP/1.1\r\n" + HOST
        answer = await exchange(served, get + b"\r\n" + SMUGGLED + get + b"Connection: close\r\n\r\n")
        assert statuses(answer) == [200, 200, 200]


@pytest.mark.parametrize("kind", ["slow_request", "large_head", "bad_http"])
async def test_an_error_before_the_routes_is_a_whole_response(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT", 0.2)
    monkeypatch.setattr(http_protocol, "MAX_HEAD", 10)
    pieces = {"slow_request": [b"G"], "large_head": [POST, b"X-A: b\r\n"], "bad_http": [b"HELLO / HTTP/1.1\r\n\r\n"]}[
        kind
    ]
    async with serving() as served:
        head, _, body = (await exchange(served, *pieces, pause=0.05)).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    wanted = error_response(ApiError(kind, json.loads(body)["error"]["message"]))
    assert status == f"HTTP/1.1 {wanted.status_code} {HTTPStatus(wanted.status_code).phrase}"
    assert body == wanted.body
    names = ["connection: close", f"content-length: {len(body)}", "content-type: application/json", "date: "]
    assert [line[:6] if line.startswith("date") else line for line in sorted(lines)] == names


def head(answer: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers of an answer."""
    status, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines)


async def get(served: Serving, line: bytes, *headers: bytes) -> bytes:
    lines = (line + b" HTTP/1.1", HOST.strip(), *headers, b"Connection: close")
    return await exchange(served, b"\r\n".join((*lines, b"", b"")))


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        (b"/v1/chat/completions", "OPTIONS, POST"),
        (b"/v1/responses/", "OPTIONS, POST"),
        (b"/tokenize", "OPTIONS, POST"),
        (b"/v1/models", "GET, HEAD, OPTIONS"),
        (b"/v1/models/org%2Fmodel:1", "GET, HEAD, OPTIONS"),
        (b"/health/live", "GET, HEAD, OPTIONS"),
        (b"/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
async def test_the_methods_of_a_path(path: bytes, allow: str) -> None:
    async with serving() as served:
        for method in (b"DELETE", b"PUT", b"TRACE", b"PROPFIND"):
            status, headers = head(await get(served, method + b" " + path))
            assert (status, headers["allow"]) == (405, allow)
        answer = await get(served, b"OPTIONS " + path)
        status, headers = head(answer)
        assert (status, headers["allow"]) == (204, allow)
        assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", [b"/v1/models", b"/v1/models/model", b"/health", b"/version", b"/openapi.json", b"/x"])
async def test_head_has_the_headers_of_get_and_no_body(path: bytes) -> None:
    async with serving() as served:
        status, headers = head(await get(served, b"GET " + path))
        answer = await get(served, b"HEAD " + path)
        assert answer.endswith(b"\r\n\r\n")
        same = ("content-type", "content-length", "cache-control")
        assert head(answer)[0] == status
        assert [head(answer)[1].get(name) for name in same] == [headers.get(name) for name in same]


async def test_head_needs_a_key_as_get_does() -> None:
    async with serving(api_key=("k",)) as served:
        assert head(await get(served, b"HEAD /v1/models"))[0] == 401
        assert head(await get(served, b"HEAD /v1/models", b"Authorization: Bearer k"))[0] == 200


async def test_of_two_keys_neither_counts() -> None:
    async with serving(api_key=("k",)) as served:
        for first, second in ((b"k", b"x"), (b"x", b"k"), (b"k", b"k")):
            keys = [b"Authorization: Bearer " + key for key in (first, second)]
            assert head(await get(served, b"GET /v1/models", *keys))[0] == 401


@pytest.mark.parametrize(
    "path", [b"/v1/chat/completions/", b"//v1//chat/completions//", b"http://other/v1/chat/completions"]
)
async def test_a_path_with_more_slashes_or_a_host_is_not_redirected(path: bytes) -> None:
    async with serving() as served:
        answer = await exchange(served, closing(LENGTH).replace(CHAT.encode(), path, 1))
        assert head(answer)[0] == 200 and len(served.triton.calls) == 1


async def test_the_list_of_models_may_end_with_a_slash() -> None:
    async with serving() as served:
        assert (await served.http.get("/v1/models/")).json() == (await served.http.get("/v1/models")).json()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("headers", [b"", b"Host: x\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"])
async def test_http_1_0_gets_no_chunks_and_no_interim_response(stream: bool, headers: bytes) -> None:
    body = json.dumps(HELLO | {"stream": stream}).encode()
    line = f"POST {CHAT} HTTP/1.0\r\nContent-Length: {len(body)}\r\n".encode()
    async with serving() as served:
        answer = await exchange(served, line + headers + b"\r\n" + body)
        status, fields = head(answer)
        assert status == 200 and fields["connection"] == "close"
        assert "transfer-encoding" not in fields
        text = answer.partition(b"\r\n\r\n")[2]
        if stream:
            assert all(event.startswith(b"data: ") for event in text.removesuffix(b"\n\n").split(b"\n\n"))
            assert text.endswith(b"data: [DONE]\n\n")
        else:
            assert len(text) == int(fields["content-length"]) and json.loads(text)


@pytest.mark.parametrize(
    "offer",
    [
        # Java's HttpClient, with which Spring AI and LangChain4j call, offers this by default.
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked", "late", "bytes"])
async def test_an_offer_of_another_protocol_is_ignored(offer: bytes, framing: str) -> None:
    body = LENGTH + b"\r\n\r\n" + BODY
    if framing == "chunked":
        body = CHUNKED + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    request = POST + offer + b"\r\n" + body
    at = request.index(b"\r\n\r\n") + 4
    pieces = {"late": [request[:at], request[at:]], "bytes": [bytes([one]) for one in request]}.get(framing, [request])
    async with serving() as served:
        after = b"GET /health/live HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
        answer = await exchange(served, *pieces, after)
        assert statuses(answer) == [200, 200], answer
        assert served.triton.calls[0].messages["messages"] == HELLO["messages"]


async def test_trailers_are_no_headers() -> None:
    async with serving(api_key=("k",)) as served:
        trailers = b"Authorization: Bearer k\r\nX-Request-Id: forged\r\n"
        body = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(BODY), BODY, trailers)
        answer = await exchange(served, closing(CHUNKED, body=body))
        assert head(answer)[0] == 401 and b"forged" not in answer
        answer = await exchange(served, closing(CHUNKED, b"Authorization: Bearer k", body=body))
        assert head(answer)[0] == 200 and b"forged" not in answer


async def test_trailers_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "MAX_HEAD", 1000)
    begun = b"%x\r\n%b\r\n0\r\nX-A: " % (len(BODY), BODY)
    async with serving() as served:
        answer = await exchange(served, closing(CHUNKED, body=begun), *[b"a" * 500] * 3, pause=0.05)
        assert head(answer)[0] == 431
        pieces = [b"%x\r\n%b\r\n" % (1, bytes([one])) for one in BODY]
        answer = await exchange(served, closing(CHUNKED, body=b""), *pieces, b"0\r\n\r\n")
        assert head(answer)[0] == 200


async def test_a_compressed_body_is_a_415_that_says_what_to_send() -> None:
    async with serving() as served:
        packed = gzip.compress(BODY)
        for coding in (b"gzip", b"br", b"identity, gzip", b"identity\r\nContent-Encoding: deflate"):
            request = closing(b"Content-Encoding: " + coding, b"Content-Length: %d" % len(packed), body=packed)
            status, headers = head(await exchange(served, request))
            assert (status, headers["accept-encoding"]) == (415, "identity")
        assert head(await exchange(served, closing(b"Content-Encoding: identity", LENGTH)))[0] == 200
        assert len(served.triton.calls) == 1


async def test_a_byte_order_mark_is_ignored() -> None:
    async with serving() as served:
        assert (await served.http.post(CHAT, content=b"\xef\xbb\xbf" + BODY)).status_code == 200
        assert (await served.http.post(CHAT, content=BODY.decode().encode("utf-16"))).status_code == 400


@pytest.mark.parametrize("rubbish", [b"rubbish\r\n\r\n", b"GET /health/live HTTP/3.0\r\n" + HOST + b"\r\n"])
@pytest.mark.parametrize("stream", [False, True])
async def test_rubbish_after_a_request_does_not_end_up_in_its_answer(rubbish: bytes, stream: bool) -> None:
    go_on = asyncio.Event()

    async def script(call: Call) -> AsyncIterator[Any]:
        yield reply("Hello")
        await go_on.wait()
        yield finish()

    body = json.dumps(HELLO | {"stream": stream}).encode()
    async with serving() as served:
        served.triton.script = script
        request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
        answer = asyncio.create_task(exchange(served, request, rubbish, pause=0.1))
        await asyncio.sleep(0.5)
        go_on.set()
        whole = await answer
        assert statuses(whole) == [200]
        assert whole.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n" if stream else b"}")


async def test_every_response_has_a_date_and_none_names_the_server() -> None:
    async with serving() as served:
        for request in (b"GET /health/live", b"GET /x", b"BREW /x"):
            headers = head(await get(served, request))[1]
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", headers["date"])
            assert "server" not in headers


async def test_no_cache_keeps_the_health() -> None:
    async with serving() as served:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            assert (await served.http.get(path)).headers["cache-control"] == "no-store"


async def test_forwarding_headers_change_nothing() -> None:
    async with serving() as served:
        headers = {
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil",
            "X-Forwarded-Prefix": "/p",
            "Forwarded": "for=x",
        }
        plain, forwarded = [await served.http.get("/v1/models", headers=one) for one in ({}, headers)]
        assert plain.content == forwarded.content


async def test_an_idle_connection_outlives_those_of_proxies() -> None:
    # nginx and AWS's load balancers keep one for 60 s.
    assert server.KEEP_ALIVE > 60
    async with serving() as served:
        assert served.server.config.timeout_keep_alive == server.KEEP_ALIVE


async def test_too_little_memory_for_a_body_is_not_the_clients_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, body: bytes) -> None:
        raise MemoryError

    async with serving() as served:
        with monkeypatch.context() as little:
            little.setattr(http_protocol.HttpToolsProtocol, "on_body", fail)
            answer = await asyncio.wait_for(exchange(served, POST + LENGTH + b"\r\n\r\n" + BODY), 10)
        assert statuses(answer) == [503] and b"too little memory" in answer and b"retry-after" in answer.lower()
        assert await still_serves(served)
