# SPDX-License-Identifier: Apache-2.0
"""Create the web application that serves the page."""

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat_page.endpoint import Endpoint
from chat_page.page import ChatPage
from chat_page.settings import PageSettings

# Nothing is loaded from other sites: an answer could name a picture whose address leaks the conversation. Gradio needs
# inline scripts and eval.
_SECURITY_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_SECURITY_HEADERS = {
    "content-security-policy": _SECURITY_POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
_MAX_UPLOAD_BYTES = 64 * 2**20


class _HeadersMiddleware:
    """Adds the security headers. Pure ASGI middleware, so that streams and disconnects pass through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def make_app(settings: PageSettings) -> FastAPI:
    """Create the application: the page at / and a health check at /health."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    page = ChatPage(Endpoint(settings), ask_key=settings.api_key is None)
    mounted: FastAPI = gr.mount_gradio_app(
        app,
        page.blocks,
        "/",
        server_name=settings.host,
        server_port=settings.port,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=_MAX_UPLOAD_BYTES,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
    )
    mounted.add_middleware(_HeadersMiddleware)
    return mounted
