# SPDX-License-Identifier: Apache-2.0
"""A chat server that answers what a test tells it, in a thread of its own, and the chat page in front of it."""

import asyncio
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from chat_page.server import make_app
from chat_page.settings import PageSettings
from tests.support.waiting import wait_until

Delta = dict[str, Any]


@dataclass
class Reply:
    """One answer. deltas: a text is one of content. held: deltas that wait for `ChatServer.resume`. status: of a refusal
    with this `error`, or of a stream that such an error ends. breaks: the connection ends without an end of the stream.
    """

    deltas: tuple[str | Delta, ...] = ()
    held: tuple[str | Delta, ...] = ()
    status: int = 200
    error: str = ""
    breaks: bool = False
    finish: str = "stop"


@dataclass
class ChatServer:
    """The server. models: what /v1/models lists. key: the one that it takes, if any. bodies: of all requests. begun and
    dropped: number of streams, and of those that a client left.
    """

    models: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "alpha"}])
    key: str = ""
    replies: deque[Reply] = field(default_factory=deque)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    begun: int = 0
    dropped: int = 0
    resume: threading.Event = field(default_factory=threading.Event)

    def play(self, *replies: str | Reply) -> None:
        """Set the answers to the next requests, in order; a text is a whole answer."""
        self.replies = deque(one if isinstance(one, Reply) else Reply((one,)) for one in replies)
        self.resume.clear()

    @property
    def asked(self) -> dict[str, Any]:
        """The body of the last request."""
        return self.bodies[-1]

    async def list_models(self, request: Request) -> Response:
        return self._refusal(request) or JSONResponse({"object": "list", "data": self.models})

    async def chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        if refusal := self._refusal(request):
            return refusal
        reply = self.replies.popleft()
        if reply.status != 200:
            return JSONResponse({"error": {"message": reply.error}}, reply.status)
        return StreamingResponse(self._stream(reply), media_type="text/event-stream")

    def _refusal(self, request: Request) -> Response | None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "no such key"}}, 401)
        return None

    async def _stream(self, reply: Reply) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            yield _event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for delta in reply.deltas:
                yield _event(_chunk(delta))
            if reply.held:
                while not self.resume.is_set():
                    await asyncio.sleep(0.02)
            for delta in reply.held:
                yield _event(_chunk(delta))
        except asyncio.CancelledError:
            self.dropped += 1
            raise
        if reply.error:
            yield _event({"error": {"message": reply.error}})
        if reply.breaks or reply.error:
            return
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": reply.finish}]})
        tokens = len(reply.deltas) + len(reply.held)
        yield _event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": tokens}}) + b"data: [DONE]\n\n"


def _chunk(delta: str | Delta) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": delta} if isinstance(delta, str) else delta}]}


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


@contextmanager
def served(app: Starlette, port: int = 0) -> Iterator[str]:
    """Serve an application in a thread; gives its URL."""
    config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server listens")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def chat_server(port: int = 0) -> Iterator[ChatServer]:
    """Run the fake server; 0 picks a free port."""
    fake = ChatServer()
    routes = [Route("/v1/models", fake.list_models), Route("/v1/chat/completions", fake.chat, methods=["POST"])]
    with served(Starlette(routes=routes), port) as fake.url:
        yield fake


@contextmanager
def chat_page(base_url: str, **settings: Any) -> Iterator[str]:
    """Run the chat page for a server; gives its URL."""
    with served(make_app(PageSettings(base_url=base_url, **settings))) as url:
        yield url
