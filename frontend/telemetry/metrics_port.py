# SPDX-License-Identifier: Apache-2.0
"""Metrics at a port of their own, so that whoever can reach the API cannot read them."""

from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.errors import ApiError

PATHS = ("/metrics", "/metrics/vllm")


class MetricsPort:
    """ASGI middleware: the metrics are at one port, and nothing else is there.

    port: a port on which this process listens beside that of the API.
    """

    def __init__(self, app: ASGIApp, *, port: int) -> None:
        self._app = app
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["server"][1] == self._port) != (scope["path"] in PATHS):
            raise ApiError("unknown_path", "There is nothing at this path")
        await self._app(scope, receive, send)
