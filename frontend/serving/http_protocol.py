# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP protocol with limits, and with the rules of RFC 9112 that it does not keep (docs/http.md).

Without limits on the size of a request's headers and on the time that they may take, a client that sends a byte now and
then holds a connection and memory for ever. The application limits the body.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import httptools
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from frontend.errors import ApiError, error_response
from frontend.serving.body_parts import BodyParts
from frontend.serving.hang_up import CONNECTION

MAX_HEAD = 64 * 2**10  # bytes of request line and headers; large cookies and a trace context need much less
HEAD_TIMEOUT = 15.0  # seconds from a connection, or from a request's first byte, to the end of its headers
DISCARD_TIMEOUT = 5.0  # seconds for the rest of a body after its request has been answered

_VERSIONS = ("1.0", "1.1")


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A request that exceeds a limit, or is no HTTP, gets an error, and the connection is closed."""

    _timer: asyncio.TimerHandle | None = None
    _in_body = False
    _head_bytes = 0
    # Of a body, since the last piece with bytes of its content: sizes of chunks, their extensions, and trailers.
    _framing_bytes = 0
    _upgrade_offered = False
    _refused = False
    _answered: RequestResponseCycle | None = None

    # uvicorn narrows the parameter of asyncio.Protocol too.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)
        # uvicorn tells only the last request, which may wait behind the one that is being answered.
        cycle = self._answered
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._in_body:
            # These bytes may hold a part of the body too, so only the pieces before them are counted.
            if self._head_bytes > MAX_HEAD:
                self._refuse(ApiError("large_head", f"The request's headers are larger than {MAX_HEAD} bytes"))
                return
            self._head_bytes += len(data)
        else:
            # The parser keeps a trailer, whose end may never come; `on_body` sets this to 0.
            self._framing_bytes += len(data)
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            # What a callback of the parser raises is the context of its error.
            if isinstance(error.__context__, MemoryError):
                self._refuse(ApiError("overloaded", "The server has too little memory at the moment; try again later"))
                return
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(ApiError("bad_http", "The request is not valid HTTP/1.1"))
            return
        if self._in_body and self._framing_bytes > MAX_HEAD:
            self._refuse(ApiError("large_head", f"The request's trailers are larger than {MAX_HEAD} bytes"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer(HEAD_TIMEOUT)

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields after a chunked body are trailers. They may not act as headers, which a proxy has checked.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # An exception here is a parser's error to `data_received`.
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError(f"HTTP/{version}")
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._upgrade_offered = True
            return
        if version == "1.0":
            if any(name == b"transfer-encoding" for name, _ in self.headers):
                # HTTP/1.0 has no chunks, so a proxy of that version may have read the body in another way.
                raise ValueError("HTTP/1.0 with Transfer-Encoding")
            self.expect_100_continue = False
        super().on_headers_complete()
        self._in_body, self._head_bytes, self._framing_bytes = True, 0, 0
        self._stop_timer()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrade_offered:
            return
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The response may be that of an earlier request than the one whose body is being read.
        if self._in_body and self.cycle.response_complete:
            self._start_timer(DISCARD_TIMEOUT)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = {CONNECTION: {"transport": self.transport, "body": BodyParts(cycle)}}
        if cycle.scope["http_version"] == "1.0":
            app = _without_chunks(cycle, app)
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._upgrade_offered:
                self._decline_upgrade(data[upgrade.args[0] :])

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read a request that offers another protocol, as Java's HttpClient offers h2c, as if it did not.

        The parser takes all that follows such headers for the other protocol: the body would be lost. So a new parser
        gets the same headers without the offer. rest: the bytes after the headers.
        """
        self._upgrade_offered = False
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._parse(b"\r\n".join((*lines, b"", rest)))

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._too_slow, seconds)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self, seconds: float) -> None:
        if self.flow.read_paused:  # The server, not the client, delays this request.
            self._start_timer(seconds)
            return
        self._refuse(ApiError("slow_request", f"The request did not arrive within {seconds:g} seconds"))

    def _refuse(self, error: ApiError) -> None:
        """Read nothing more, and close the connection: with the error, or with the response that is under way."""
        self._stop_timer()
        self._refused = True
        waiting: RequestResponseCycle | None = self.cycle
        if waiting is None or waiting.response_complete:
            may_respond = self._head_bytes > 0  # No response to a connection that never sent a byte.
        elif self._in_body:
            may_respond = not waiting.response_started
        else:
            # The error is that of a later request; a response to it would be taken for that of an earlier one.
            waiting.keep_alive = False
            return
        if may_respond:
            scope = waiting.scope if waiting is not None and self._in_body else None
            self.transport.write(_raw(error_response(error, scope), self.server_state.default_headers))
        self.transport.close()


def _without_chunks(cycle: RequestResponseCycle, app: ASGIApp) -> ASGIApp:
    """Let a response of unknown length to HTTP/1.0 end with the connection: HTTP/1.0 knows no chunks."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        until_close = False

        async def send_plain(message: Message) -> None:
            nonlocal until_close
            if message["type"] == "http.response.start":
                until_close = all(name.lower() != b"content-length" for name, _ in message["headers"])
                if until_close:
                    cycle.chunked_encoding = False
            elif until_close:
                # uvicorn counts down to the end of a body without chunks.
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plain)

    return wrapped


def _raw(response: Response, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return a response as HTTP/1.1 text. default_headers: uvicorn's, with the date."""
    status = HTTPStatus(response.status_code)
    lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode())]
    lines += [name + b": " + value for name, value in (*default_headers, *response.raw_headers)]
    return b"\r\n".join((*lines, b"", response.body))
