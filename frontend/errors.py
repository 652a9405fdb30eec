# SPDX-License-Identifier: Apache-2.0
"""Every error that a client can see, and how it is written: one table of statuses, one function for a response."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import orjson
from pydantic import ValidationError
from starlette.responses import Response

from common.errors import Kind, RequestError

MAX_MESSAGE = 500


@dataclass(frozen=True, slots=True)
class Shape:
    """The status, the headers and the body's type and code of one kind of error."""

    status: int
    type: str
    code: str | None
    headers: dict[str, str] = field(default_factory=dict)


_RETRY = {"Retry-After": "1"}

KINDS: dict[Kind, Shape] = {
    "invalid_request": Shape(400, "invalid_request_error", None),
    "not_found": Shape(404, "invalid_request_error", "adapter_not_found"),
    "context_length": Shape(400, "invalid_request_error", "context_length_exceeded"),
    "cancelled": Shape(499, "cancelled", "request_cancelled"),
    "timeout": Shape(504, "timeout_error", "timeout"),
    "unavailable": Shape(503, "service_unavailable_error", "unavailable", _RETRY),
    "internal": Shape(500, "server_error", "internal_error"),
}

REFUSALS: dict[str, Shape] = {
    "bad_http": Shape(400, "invalid_request_error", "invalid_http", {"Connection": "close"}),
    "bad_key": Shape(401, "authentication_error", "invalid_api_key", {"WWW-Authenticate": "Bearer"}),
    "unknown_model": Shape(404, "invalid_request_error", "model_not_found"),
    "not_admin": Shape(403, "permission_error", "admin_key_required"),
    "conflict": Shape(409, "invalid_request_error", "conflict"),
    "model_forbidden": Shape(403, "permission_error", "model_not_allowed"),
    "model_not_ready": Shape(503, "service_unavailable_error", "model_not_ready", _RETRY),
    "unknown_path": Shape(404, "invalid_request_error", "not_found"),
    "method": Shape(405, "invalid_request_error", "method_not_allowed"),
    "bad_origin": Shape(403, "permission_error", "origin_not_allowed"),
    "slow_request": Shape(408, "timeout_error", "request_timeout", {"Connection": "close"}),
    "rate_limited": Shape(429, "rate_limit_error", "rate_limit_exceeded"),
    "too_large": Shape(413, "invalid_request_error", "request_too_large"),
    "content_encoding": Shape(
        415, "invalid_request_error", "unsupported_content_encoding", {"Accept-Encoding": "identity"}
    ),
    "large_head": Shape(431, "invalid_request_error", "headers_too_large", {"Connection": "close"}),
    "overloaded": Shape(503, "overloaded_error", "overloaded", _RETRY),
}

# Anthropic's API is below this path. Its clients read the request's id from this header.
MESSAGES = "/v1/messages/"
REQUEST_ID = "request-id"
# Status -> the type of an error there; the others below 500 are `invalid_request_error`.
MESSAGE_ERRORS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}

_SLOW_READER = Shape(499, "cancelled", "slow_reader")

# What Triton writes if a model or Triton itself cannot take a request now. Its stream has no status codes.
_UNAVAILABLE = re.compile(
    r"unknown model|not ready|not available|unavailable|no available versions"
    r"|maximum queue size|shutting down|stub process",
    re.IGNORECASE,
)


# What Triton's Python backend writes of a request that needs more of /dev/shm than is free.
_NO_SHARED_MEMORY = re.compile("Failed to increase the shared memory pool size")
# What the C++ backend writes if it needs the weights of an adapter.
_NOT_CACHED = re.compile(r"LoRA task \d+ not found in cache")


class ApiError(Exception):
    """An error that only the HTTP side knows.

    kind: a key of REFUSALS. param: the request's field at fault. retry_after: seconds for the header Retry-After.
    allow: the methods of the path, for the header Allow.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(message)
        self.shape = REFUSALS[kind]
        if retry_after is not None:
            self.shape = replace(self.shape, headers=self.shape.headers | {"Retry-After": str(retry_after)})
        if allow is not None:
            self.shape = replace(self.shape, headers=self.shape.headers | {"Allow": allow})
        self.message = message
        self.param = param


class AdapterNotCached(RequestError):
    """The cache of NVIDIA's C++ backend lacks the adapter of a request, whose weights must be sent."""

    def __init__(self) -> None:
        super().__init__("The engine has no room for this adapter at the moment", kind="unavailable")


class ClientGone(Exception):
    """The client closed its connection, so there is no one to answer."""


class SlowReader(Exception):
    """The client does not read the response that is sent to it."""


class ShuttingDown(RequestError):
    """The server shuts down before the request has ended."""

    def __init__(self) -> None:
        super().__init__("The server is shutting down", kind="unavailable")


@contextmanager
def translated(
    own: Callable[[Any], RequestError], kinds: type[Exception] | tuple[type[Exception], ...] = RequestError
) -> Iterator[None]:
    """Raise what `own` makes of an error of these kinds in the block."""
    try:
        yield
    except kinds as error:
        made = own(error)
        if made is error:
            raise
        raise made from error


def describe(error: BaseException) -> tuple[Shape, str, str | None]:
    """Return the shape, the message and the param of an error. The text of an unknown exception is never shown."""
    if isinstance(error, RequestError):
        return KINDS[error.kind], error.message, error.param
    if isinstance(error, ApiError):
        return error.shape, error.message, error.param
    if isinstance(error, ValidationError):
        return KINDS["invalid_request"], *_first_mistake(error)
    if isinstance(error, ClientGone):
        return KINDS["cancelled"], "The client closed the connection", None
    if isinstance(error, SlowReader):
        return _SLOW_READER, "The client did not read its answer", None
    return KINDS["internal"], "Internal server error", None


def error_response(error: BaseException, scope: Mapping[str, Any] | None = None) -> Response:
    """Return the response to a request that failed: status, headers and body.

    scope: the request's ASGI scope, whose path decides on the form of the body; None before there is one.
    """
    shape = describe(error)[0]
    body, headers = error_json(error), shape.headers
    if scope is not None and f"{scope['path']}/".startswith(MESSAGES):
        request_id: str | None = scope.get("state", {}).get("request_id")
        body, headers = message_error(error, request_id), headers | ({REQUEST_ID: request_id} if request_id else {})
    return Response(body, shape.status, headers=headers, media_type="application/json")


def error_json(error: BaseException) -> bytes:
    """Return an error as OpenAI's error object: the body of a response, or the data of a stream's event."""
    shape, message, param = describe(error)
    return orjson.dumps({"error": {"message": _cut(message), "type": shape.type, "param": param, "code": shape.code}})


def message_error(error: BaseException, request_id: str | None) -> bytes:
    """Return an error as Anthropic's error object. It has no place for the field at fault, so the message names it."""
    shape, message, param = describe(error)
    if param is not None and param not in message:
        message = f"{param}: {message}"
    kind = MESSAGE_ERRORS.get(shape.status, "invalid_request_error")
    about = {"type": kind, "message": _cut(message)}
    return orjson.dumps({"type": "error", "error": about, "request_id": request_id})


def _cut(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."


def _first_mistake(error: ValidationError) -> tuple[str, str | None]:
    """Return the message and the param of the first mistake. The value that the client sent is never repeated.

    A rule between fields raises RequestError, whose param is the field to change: pydantic has no place for it.
    """
    mistake = error.errors(include_url=False, include_input=False)[0]
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, RequestError):
        return cause.message, cause.param
    param = ""
    for part in mistake["loc"]:
        if isinstance(part, int):
            param += f"[{part}]"
        elif re.fullmatch(r"[a-z_][a-z0-9_]{0,39}", part):
            # A union's branches ("list[str]") and a mapping's keys are part of pydantic's path but not of the field's.
            param += f".{part}" if param else part
    text = mistake["msg"].removeprefix("Value error, ")
    return (f"{param}: {text}" if param else text), param or None


def upstream_error(text: str) -> RequestError:
    """Turn an error message of Triton into a RequestError. The text of an unknown one is not shown to clients."""
    known = RequestError.decode(text)
    if known is not None:
        return known
    if _NOT_CACHED.search(text):
        return AdapterNotCached()
    if _NO_SHARED_MEMORY.search(text):
        return RequestError("The server has too little shared memory at the moment", kind="unavailable")
    if _UNAVAILABLE.search(text):
        return RequestError("The model is not available at the moment", kind="unavailable")
    return RequestError("The engine failed to serve the request", kind="internal")


LATE: tuple[Kind, str] = ("timeout", "Triton did not answer in time")
_GRPC_KINDS: dict[grpc.StatusCode, tuple[Kind, str]] = {
    grpc.StatusCode.UNAVAILABLE: ("unavailable", "Triton cannot be reached at the moment"),
    grpc.StatusCode.DEADLINE_EXCEEDED: LATE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ("unavailable", "Triton is overloaded at the moment"),
    grpc.StatusCode.CANCELLED: ("unavailable", "The connection to Triton was closed"),
}


def rpc_error(error: grpc.aio.AioRpcError) -> RequestError:
    """Turn a failed gRPC call into a RequestError."""
    text = error.details() or ""
    if RequestError.decode(text) is None and error.code() in _GRPC_KINDS:
        kind, message = _GRPC_KINDS[error.code()]
        return RequestError(message, kind=kind)
    return upstream_error(text)
