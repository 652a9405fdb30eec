# SPDX-License-Identifier: Apache-2.0
"""ASGI middleware before the routes: path, API key, quota and the size of the body.

It is pure ASGI because Starlette's BaseHTTPMiddleware hides a client's disconnect from the routes.
"""

import re
from contextlib import ExitStack

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from frontend.auth.authenticator import PROTECTED, Authenticator
from frontend.errors import ApiError, error_response
from frontend.telemetry.request_record import current


class Gate:
    """Normalises the path, checks the API key and its quota, and limits the body's size."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, authenticator: Authenticator) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        # Many clients join the base URL and the path with one slash too many.
        scope["path"] = re.sub("/{2,}", "/", scope["path"])
        with ExitStack() as held:
            try:
                self._authorize(scope["path"], scope["method"], headers, held)
                self._check_length(headers.get("content-length"))
            except ApiError as error:
                current().fail(error)
                await error_response(error)(scope, receive, send)
                return
            await self._app(scope, self._limited(receive), send)

    def _authorize(self, path: str, method: str, headers: Headers, held: ExitStack) -> None:
        """Raise ApiError if the caller may not call. The key's quota is in use until `held` is closed."""
        if method == "OPTIONS" or not path.startswith(PROTECTED):
            return
        if method == "POST":
            self._authenticator.check_origin(headers)
        caller = self._authenticator.authenticate(headers)
        if caller is None:
            return
        current().key, quota = caller
        if method == "POST":
            held.enter_context(quota.use())

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
