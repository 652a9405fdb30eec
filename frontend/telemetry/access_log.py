# SPDX-License-Identifier: Apache-2.0
"""Name each request, and report how it ended in one log line, in the metrics and in its trace.

No line holds text of a prompt or an answer, an image, a key, or the query of a URL.
"""

import logging
import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.telemetry import metrics
from frontend.telemetry.metrics_port import PATHS
from frontend.telemetry.request_record import CURRENT, RequestRecord
from frontend.telemetry.tracing import RequestTrace, Tracing

logger = logging.getLogger("frontend.access")

# No white space and no quotes: an id is written as it is to log lines, a header and Triton's request id.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_LONGEST_PATH = 200
# What monitoring asks for every few seconds is logged at the level debug, and not traced.
_QUIET = ("/health", "/health/live", "/health/ready", *PATHS)


class AccessLog:
    """The outermost ASGI middleware: gives each request its id and reports how it ended.

    respond: makes the response to an exception that no other layer handled.
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
            record.trace = self._tracing.begin(record.method, headers)
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
                _end_trace(record.trace, record)
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
    """An ASGI `send` that adds X-Request-Id to the response and records its status."""

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
    if not logger.isEnabledFor(level):
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
    logger.log(level, "request", extra={"fields": fields})


def _end_trace(trace: RequestTrace, record: RequestRecord) -> None:
    """End the request's span with what the log line says."""
    route = record.path if record.endpoint is not None else ""
    attributes = {
        "http.request.method": record.method,
        "http.route": route or None,
        "http.response.status_code": record.status,
        "triton_chat.request_id": record.request_id,
        "triton_chat.outcome": record.outcome,
        "triton_chat.images": record.images or None,
        "gen_ai.request.model": record.model,
        "gen_ai.response.model": record.label or None,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.server.time_to_first_token": record.ttft,
    }
    trace.end(f"{record.method} {route}".strip(), record.outcome, attributes)
