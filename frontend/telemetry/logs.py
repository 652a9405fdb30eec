# SPDX-License-Identifier: Apache-2.0
"""The frontend's log: its set-up, the name that every request has in it, and one line for each request.

No line holds what a prompt or an answer says, an image, a key, or what stands behind the "?" of an address.
"""

import logging
import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.logs import handler
from frontend.telemetry import metrics
from frontend.telemetry.request_record import CURRENT, RequestRecord
from frontend.telemetry.tracing import Tracing

access = logging.getLogger("frontend.access")

# No white space and no quotes: an id goes into log lines, a header and Triton's request id as it is.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_LONGEST_PATH = 200
# What monitoring asks every few seconds is told at the level debug alone.
_QUIET = ("/health", "/health/live", "/health/ready", "/metrics")
# Libraries that would write whole addresses, queries and all.
_TALKATIVE = ("httpx", "httpcore")


def set_up(level: str, log_format: str) -> None:
    """One handler for everything that this process logs."""
    root = logging.getLogger()
    writer = handler(log_format, verbose=level == "debug")
    writer.addFilter(_name_request)
    root.handlers = [writer]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _name_request(line: logging.LogRecord) -> bool:
    """Give a line that is written while a request is served the request's id."""
    record = CURRENT.get()
    if record is not None:
        line.fields = {"request_id": record.request_id} | getattr(line, "fields", {})
    return True


class AccessLog:
    """The outermost layer: names each request, and tells log, metrics and trace how it ended.

    respond: the answer to an error that nothing inside foresaw.
    """

    def __init__(
        self, app: ASGIApp, *, tracing: Tracing | None, respond: Callable[[Request, Exception], Awaitable[Response]]
    ) -> None:
        self._app = app
        self._tracing = tracing
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked_id = headers.get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else uuid.uuid4().hex
        record = RequestRecord(request_id, scope["method"], scope["path"])
        scope.setdefault("state", {})["request_id"] = request_id
        if self._tracing is not None and scope["path"] not in _QUIET:
            record.trace = self._tracing.begin(record, headers)
        token = CURRENT.set(record)
        try:
            await self._serve(scope, receive, _Named(record, send))
        except BaseException as error:
            record.fail(error)
            raise
        finally:
            record.path = scope["path"]
            metrics.count(record)
            _log(record)
            if record.trace is not None:
                record.trace.end(record)
            CURRENT.reset(token)

    async def _serve(self, scope: Scope, receive: Receive, send: "_Named") -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            send.record.fail(error)
            if send.record.status is not None:
                raise
            response = await self._respond(Request(scope, receive), error)
            await response(scope, receive, send)


class _Named:
    """`send` that names the request in the answer's head and notes its status."""

    def __init__(self, record: RequestRecord, send: Send) -> None:
        self.record = record
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.record.status = message["status"]
            MutableHeaders(scope=message)["X-Request-Id"] = self.record.request_id
        await self._send(message)


def _log(record: RequestRecord) -> None:
    level = logging.DEBUG if record.path in _QUIET and record.error is None else logging.INFO
    if not access.isEnabledFor(level):
        return
    path = record.path[:_LONGEST_PATH]
    fields = {
        "request_id": record.request_id,
        "method": record.method,
        "path": path,
        "status": record.status,
        "outcome": record.outcome,
        "endpoint": record.endpoint,
        "model": record.model,
        "key": record.key,
        "images": record.images or None,
        "prompt_tokens": record.prompt_tokens,
        "completion_tokens": record.completion_tokens,
        "cached_tokens": record.cached_tokens,
        "ttft": None if record.ttft is None else round(record.ttft, 6),
        "duration": round(record.seconds, 6),
        "trace_id": None if record.trace is None else record.trace.id,
    }
    access.log(level, "request", extra={"fields": fields})
