# SPDX-License-Identifier: Apache-2.0
"""The promises of docs/http.md about sound requests, at the socket. Broken ones are in test_http_protocol.py."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.fake_triton import silence
from tests.fakes.frontend_server import CHAT, WAIT, Serving, serving
from tests.unit.frontend.serving.test_http_protocol import (
    BODY,
    CHUNKED,
    HOST,
    LENGTH,
    POST,
    SMUGGLED,
    closing,
    exchange,
    get,
    head,
    statuses,
)

LAST = b"GET /health/live HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
UNKNOWN = POST.replace(CHAT.encode(), b"/nothing")


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving(max_body_bytes=1000) as one:
        yield one


def in_chunks(body: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n0%b\r\n%b\r\n" % (len(body), extension, body, extension, trailers)


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (closing(LENGTH, b"Expect: 100-continue"), [100, 200]),
        (closing(CHUNKED, b"Expect: 100-Continue", body=in_chunks(BODY)), [100, 200]),
        (closing(LENGTH, b"Expect: 200-ok"), [200]),
        (UNKNOWN + b"Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\nhello", [404]),
        (closing(b"Content-Length: 2000", b"Expect: 100-continue", body=b" " * 2000), [413]),
    ],
)
async def test_expectations(served: Serving, request_bytes: bytes, expected: list[int]) -> None:
    assert statuses(await exchange(served, request_bytes)) == expected


@pytest.mark.parametrize(
    "body",
    [
        in_chunks(BODY, b';a=b;c="d"'),
        in_chunks(BODY, trailers=b"Expires: 0\r\n"),
        b"".join(b"1\r\n%c\r\n" % one for one in BODY) + b"0\r\n\r\n",
        b"000%X\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY),
    ],
)
async def test_chunks(served: Serving, body: bytes) -> None:
    assert statuses(await exchange(served, closing(CHUNKED, body=body))) == [200]


@pytest.mark.parametrize("trailer", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_a_trailer_that_would_change_the_framing(served: Serving, trailer: bytes) -> None:
    answer = await exchange(served, closing(CHUNKED, body=in_chunks(BODY, trailers=trailer + b"\r\n")) + SMUGGLED)
    assert statuses(answer) == [400] and not served.triton.calls


@pytest.mark.parametrize("length", [b"", LENGTH + b"\r\n"])
async def test_http_1_0_has_no_transfer_encoding(served: Serving, length: bytes) -> None:
    request = POST.replace(b"HTTP/1.1", b"HTTP/1.0") + length + b"Connection: keep-alive\r\n"
    answer = await exchange(served, request + CHUNKED + b"\r\n\r\n" + in_chunks(BODY) + SMUGGLED)
    assert statuses(answer) == [400] and not served.triton.calls


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (UNKNOWN + LENGTH + b"\r\n\r\n" + BODY, 404),
        (POST + b"Content-Length: 2000\r\n\r\n" + b" " * 2000, 413),
        (POST + CHUNKED + b"\r\n\r\n" + in_chunks(b" " * 2000), 413),
        (POST.replace(b"POST", b"PUT") + LENGTH + b"\r\n\r\n" + BODY, 405),
        (POST + LENGTH + b"\r\n\r\n" + BODY, 200),
    ],
)
async def test_the_connection_goes_on_after_an_early_error(served: Serving, first: bytes, status: int) -> None:
    head_end = first.index(b"\r\n\r\n") + 4
    for pieces in ([first + LAST], [first[:head_end], first[head_end:], LAST]):
        assert statuses(await exchange(served, *pieces, pause=0.05)) == [status, 200]


@pytest.mark.parametrize(
    "lines",
    [
        (b"Accept: text/html",),
        (b"Accept-Encoding: gzip, identity;q=0",),
        (b"Range: bytes=0-3",),
        (b"If-None-Match: *", b'If-Match: "x"', b"If-Modified-Since: Thu, 26 Nov 2126 22:00:00 GMT"),
        (b"TE: trailers", b"Max-Forwards: 0", b"X: \xff"),
    ],
)
async def test_conditions_and_preferences_are_ignored(served: Serving, lines: tuple[bytes, ...]) -> None:
    plain, answer = await get(served, b"GET /v1/models"), await get(served, b"GET /v1/models", *lines)
    assert head(answer)[0] == 200
    assert answer.partition(b"\r\n\r\n")[2] == plain.partition(b"\r\n\r\n")[2]
    assert not {"etag", "content-encoding", "accept-ranges"} & head(answer)[1].keys()


@pytest.mark.parametrize(
    "target", [b"/health/live?x=1&y", b"/health/live#top", b"/%68ealth%2Flive", b"//health/live//"]
)
async def test_targets(served: Serving, target: bytes) -> None:
    assert head(await get(served, b"GET " + target))[0] == 200


async def test_of_a_repeated_header_the_first_counts(served: Serving) -> None:
    answer = await exchange(served, closing(LENGTH, b"X-Request-Id: one", b"X-Request-Id: two"))
    assert head(answer)[1]["x-request-id"] == "one"


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Content-Type: application/x-www-form-urlencoded",),
        (b"Content-Type: application/json; charset=latin-1",),
        (b"Content-Type: a/b", b"Content-Type: ;;;"),
    ],
)
async def test_every_body_is_json_in_utf_8(served: Serving, lines: tuple[bytes, ...]) -> None:
    body = '{"messages":[{"role":"user","content":"é世"}]}'.encode()
    assert statuses(await exchange(served, closing(b"Content-Length: %d" % len(body), *lines, body=body))) == [200]
    assert served.triton.calls[-1].messages["messages"][0]["content"] == "é世"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        BODY.decode().encode("utf-16"),
        BODY.decode().encode("utf-32"),
        BODY.replace(b"Hi", b"\xe9"),
        BODY.replace(b"Hi", b"\xc0\xaf"),
        BODY[:-1] + b",}",
        BODY + b"// x",
        BODY + BODY,
        BODY[:-1] + b',"temperature":NaN}',
        BODY[:-1] + b',"temperature":-Infinity}',
        b"[]",
        b"null",
    ],
)
async def test_what_is_no_json_object_is_refused(served: Serving, body: bytes) -> None:
    assert statuses(await exchange(served, closing(b"Content-Length: %d" % len(body), body=body))) == [400]
    assert not served.triton.calls


async def test_of_a_repeated_key_the_last_value_counts(served: Serving) -> None:
    response = await served.http.post(CHAT, content=BODY[:-1] + b',"temperature":1,"temperature":0.5}')
    assert response.status_code == 200 and served.triton.calls[0].inputs["temperature"] == [0.5]


async def test_a_stream_is_neither_cached_nor_buffered(served: Serving) -> None:
    body = json.dumps(json.loads(BODY) | {"stream": True}).encode()
    fields = head(await exchange(served, closing(b"Content-Length: %d" % len(body), body=body)))[1]
    assert (fields["cache-control"], fields["x-accel-buffering"]) == ("no-cache", "no")


async def half_closed(served: Serving, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
    async with asyncio.timeout(WAIT):
        writer.write(sent)
        if sent.endswith(BODY):
            while not served.triton.calls:
                await asyncio.sleep(0.01)
        writer.write_eof()
        answer: Any = await reader.read()
    writer.close()
    return bytes(answer)


async def test_a_client_that_closes_its_side_has_left(served: Serving) -> None:
    served.triton.script = silence
    assert await half_closed(served, POST + LENGTH + b"\r\n\r\n" + BODY) == b""
    await served.stopped()
    for part in (b"GET /hea", POST + LENGTH + b"\r\n\r\n" + BODY[:9]):
        assert await half_closed(served, part) == b""
