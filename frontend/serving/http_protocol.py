# SPDX-License-Identifier: Apache-2.0
"""uvicorn's HTTP protocol with limits on the size of a request's headers and on the time that they may take.

Without them a client that sends a byte now and then holds a connection and memory for ever. The application limits the
body.
"""

import asyncio
from http import HTTPStatus

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from frontend.errors import ApiError, error_response

MAX_HEAD = 64 * 2**10  # bytes of request line and headers; large cookies and a trace context need much less
HEAD_TIMEOUT = 15.0  # seconds from a connection, or from a request's first byte, to the end of its headers
DISCARD_TIMEOUT = 5.0  # seconds for the rest of a body after its request has been answered


class BoundedProtocol(HttpToolsProtocol):
    """One connection. If a request exceeds a limit, an error is sent and the connection is closed."""

    _timer: asyncio.TimerHandle | None = None
    _in_body = False
    _head_bytes = 0

    # uvicorn narrows the parameter of asyncio.Protocol too.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_timer(HEAD_TIMEOUT)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._in_body:
            # These bytes may hold a part of the body too, so only the pieces before them are counted.
            if self._head_bytes > MAX_HEAD:
                self._refuse(ApiError("large_head", f"The request's headers are larger than {MAX_HEAD} bytes"))
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._start_timer(HEAD_TIMEOUT)

    def on_headers_complete(self) -> None:
        self._in_body, self._head_bytes = True, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body:
            self._start_timer(DISCARD_TIMEOUT)

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
        self._stop_timer()
        waiting: RequestResponseCycle | None = self.cycle
        if waiting is None or waiting.response_complete:
            may_respond = self._head_bytes > 0  # No response to a connection that never sent a byte.
        else:
            may_respond = not waiting.response_started
        if may_respond:
            self.transport.write(_raw(error_response(error)))
        self.transport.close()


def _raw(response: Response) -> bytes:
    """Return a response as HTTP/1.1 text."""
    status = HTTPStatus(response.status_code)
    lines = [b"HTTP/1.1 %d %b" % (status, status.phrase.encode())]
    lines += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join((*lines, b"", response.body))
