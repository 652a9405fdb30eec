# SPDX-License-Identifier: Apache-2.0
"""The web application: the page's files, a health check, and the endpoint behind the same address."""

import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_page.endpoint import Endpoint
from chat_page.settings import PageSettings

STATIC = Path(__file__).parent / "static"
# Scripts and styles only from files, so that markup in an answer can run none; pictures and videos only from the
# visitor's own chats, because an address in an answer could carry the conversation to another site.
_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    # Files are asked for again after an upgrade; unchanged ones are not sent again.
    "cache-control": "no-cache",
    "content-security-policy": _SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class _HeadersMiddleware:
    """Adds the security headers. Pure ASGI middleware, so that streams and disconnects pass through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def make_app(settings: PageSettings, endpoint: Endpoint | None = None) -> Starlette:
    """Create the application; `endpoint` replaces that of the settings in tests."""
    to = endpoint or Endpoint(settings)

    async def health(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def page_settings(request: Request) -> JSONResponse:
        return JSONResponse({"server": to.base_url, "asks_key": settings.api_key is None})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await to.close()

    routes = [
        Route("/health", health),
        Route("/page.json", page_settings),
        # Nothing else of the endpoint is to be had here, its administration least of all.
        Route("/v1/models", to.answer, methods=["GET"]),
        Route("/v1/chat/completions", to.answer, methods=["POST"]),
        Mount("/", StaticFiles(directory=STATIC, html=True)),
    ]
    middleware = [Middleware(_HeadersMiddleware)]
    if _is_loopback(settings.host):
        # Another site's name that is made to lead to this address would be the page's own origin for the browser.
        given = f"[{settings.host}]" if ":" in settings.host else settings.host
        hosts = ["localhost", "127.0.0.1", "[::1]", given]
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False))
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


def _is_loopback(host: str) -> bool:
    """Whether an address, or a name's address, is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(socket.getaddrinfo(host, None)[0][4][0]).is_loopback
    except OSError:
        return False
