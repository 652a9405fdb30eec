# SPDX-License-Identifier: Apache-2.0
"""What every HTTP request passes before the routes. Pure ASGI, so that a client's disconnect stays visible."""

import hmac
import re
import uuid
from collections.abc import Sequence

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.errors import ApiError, describe, error_body

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_PROTECTED = ("/v1/", "/tokenize", "/detokenize")


class Gate:
    """Tidies the path, names the request, checks the key, limits the body (with or without a Content-Length)."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, api_keys: Sequence[str]) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._api_keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Clients that join a base URL and a path with one slash too many are common.
        scope["path"] = re.sub("/{2,}", "/", scope["path"])
        asked_id = headers.get("x-request-id", "")
        request_id = asked_id if _REQUEST_ID.fullmatch(asked_id) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            self._check_key(scope["path"], scope["method"], headers)
            self._check_length(headers.get("content-length"))
        except ApiError as error:
            await _refuse(error, send_named)
            return
        await self._app(scope, self._limited(receive), send_named)

    def _check_key(self, path: str, method: str, headers: Headers) -> None:
        if not self._api_keys or method == "OPTIONS" or not path.startswith(_PROTECTED):
            return
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode()
        # Every key is compared, in constant time: how long this takes tells nothing.
        known = [hmac.compare_digest(given, one) for one in self._api_keys]
        if scheme.lower() != "bearer" or not any(known):
            raise ApiError("bad_key", "A valid API key is required: Authorization: Bearer <key>")

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


async def _refuse(error: ApiError, send: Send) -> None:
    shape, body = describe(error)[0], orjson.dumps(error_body(error))
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **shape.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": shape.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
