# SPDX-License-Identifier: Apache-2.0
"""ASGI middleware before the routes: path, Host, API key, quota, and the encoding and size of the body.

It is pure ASGI because Starlette's BaseHTTPMiddleware hides a client's disconnect from the routes.
"""

import re
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.auth.authenticator import ADMIN, PROTECTED, Authenticator
from frontend.errors import ApiError, error_response
from frontend.telemetry.request_record import current

STORED = "/v1/responses/"
# The characters of a host and a port (RFC 3986); the names are nobody's concern here.
_HOST = re.compile(r"[A-Za-z0-9\[\]:._~!$&'()*+,;=%-]*")


class Gate:
    """Normalises the path, checks the headers, the API key and its quota, and limits the body's size."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, authenticator: Authenticator) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Many clients join the base URL and the path with one slash too many, or end with one. No redirect: its address
        # would have the scheme and the host of this side of a proxy.
        scope["path"] = re.sub("/{2,}", "/", scope["path"]).rstrip("/") or "/"
        with ExitStack() as held:
            try:
                _check_host(scope["http_version"], headers.getlist("host"))
                self._authorize(scope["path"], scope["method"], headers, held)
                _check_codings(headers)
                self._check_length(headers.get("content-length"))
            except ApiError as error:
                current().fail(error)
                await error_response(error, scope)(scope, receive, send)
                return
            await self._app(scope, self._limited(receive), send)

    def _authorize(self, path: str, method: str, headers: Headers, held: ExitStack) -> None:
        """Raise ApiError if the caller may not call. The key's quota is in use until `held` is closed."""
        admin = path.startswith(ADMIN)
        if method == "OPTIONS" or not (admin or path.startswith(PROTECTED)):
            return
        if method in ("POST", "DELETE"):
            self._authenticator.check_origin(headers)
        if admin:
            self._authenticator.check_admin(headers)
            current().key = "admin"
            return
        caller = self._authenticator.authenticate(headers)
        if caller is None:
            return
        record = current()
        record.key, record.owner, record.key_models = caller.name, caller.owner, caller.models
        # Stored responses are read without admission, and may be large.
        if method == "POST" or path.startswith(STORED):
            held.enter_context(caller.quota.use())

    def _check_length(self, length: str | None) -> None:
        if length is not None and length.isascii() and length.isdigit() and int(length[:20]) > self._max_body_bytes:
            raise self._too_large()

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._max_body_bytes:
                    raise self._too_large()
            return message

        return limited

    def _too_large(self) -> ApiError:
        return ApiError("too_large", f"The request body is larger than {self._max_body_bytes} bytes")


def _check_host(http_version: str, hosts: list[str]) -> None:
    """Raise ApiError unless there is one valid Host; HTTP/1.0 needs none."""
    if len(hosts) != 1 and (hosts or http_version != "1.0"):
        raise ApiError("bad_http", "A request has exactly one Host header", param="Host")
    if hosts and not _HOST.fullmatch(hosts[0]):
        raise ApiError("bad_http", "The Host header is not valid", param="Host")


def _check_codings(headers: Headers) -> None:
    """Raise ApiError for a body that is compressed: no coding is undone here."""
    for coding in headers.getlist("content-encoding"):
        if coding.strip().lower() not in ("", "identity"):
            raise ApiError("content_encoding", "Compressed request bodies are not supported", param="Content-Encoding")
    if headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
        raise ApiError("bad_http", "The only supported transfer coding is chunked", param="Transfer-Encoding")
