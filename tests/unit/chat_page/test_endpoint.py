# SPDX-License-Identifier: Apache-2.0
"""The page's way to the endpoint: what is passed on, what is not, and whom it trusts."""

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat_page.endpoint import Endpoint
from chat_page.server import make_app
from chat_page.settings import PageSettings
from tests.fakes.certificate import write_certificate

URL = "http://server/v1"
SCOPE = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}
SCOPE |= {"asgi": {"version": "3.0"}, "server": ("page", 80), "scheme": "http", "http_version": "1.1"}
Answer = Callable[[httpx.Request], httpx.Response]


def page(answer: Answer, **settings: Any) -> httpx.AsyncClient:
    """A client of the page before an endpoint that answers so."""
    options = PageSettings(base_url=URL, **settings)
    app = make_app(options, Endpoint(options, httpx.MockTransport(answer)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page")


async def test_a_request_is_passed_on_with_the_visitors_key_and_nothing_else() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        headers = {"content-type": "application/json", "x-request-id": "r", "set-cookie": "a=b", "retry-after": "3"}
        return httpx.Response(429, headers=headers, json={"error": {"message": "It is full"}})

    async with page(answer) as client:
        headers = {"authorization": "Bearer sk-1", "cookie": "c=d", "x-other": "e"}
        response = await client.post("/v1/chat/completions", json={"model": "a"}, headers=headers)
    (request,) = seen
    assert str(request.url) == f"{URL}/chat/completions" and json.loads(request.content) == {"model": "a"}
    assert request.headers["authorization"] == "Bearer sk-1"
    assert not {"cookie", "x-other", "origin"} & set(request.headers)
    assert (response.status_code, response.json()) == (429, {"error": {"message": "It is full"}})
    assert (response.headers["x-request-id"], response.headers["retry-after"]) == ("r", "3")
    assert "set-cookie" not in response.headers


async def test_the_pages_own_key_replaces_the_visitors() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"key": request.headers["authorization"]})

    async with page(answer, api_key="mine") as client:
        response = await client.get("/v1/models", headers={"authorization": "Bearer theirs"})
        assert response.json() == {"key": "Bearer mine"}
        assert (await client.get("/page.json")).json() == {"server": URL, "asks_key": False}


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ConnectTimeout("late")])
async def test_a_server_that_cannot_be_reached_is_named(error: Exception) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    async with page(answer) as client:
        response = await client.get("/v1/models")
    assert response.status_code == 502
    assert response.json()["error"]["message"] == f"The server at {URL} cannot be reached."
    assert response.json()["error"]["code"] == "unreachable"


async def test_other_sites_may_not_ask_and_only_two_paths_lead_to_the_endpoint() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    async with page(answer) as client:
        for site in ("cross-site", "same-site"):
            response = await client.post("/v1/chat/completions", content="{}", headers={"sec-fetch-site": site})
            assert response.status_code == 403
        for path in ("/v1/load_lora_adapter", "/admin/models", "/v1/chat/completions/../../admin", "/metrics"):
            assert (await client.get(path)).status_code in (404, 405)
        assert (await client.post("/v1/models", json={})).status_code == 405


class Stream(httpx.AsyncByteStream):
    """A body without end, which says when it was closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed.set()


async def test_parts_come_at_once_and_a_visitor_who_leaves_closes_the_endpoints_stream() -> None:
    body = Stream()
    settings = PageSettings(base_url=URL)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=body))
    app = make_app(settings, Endpoint(settings, transport))
    parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    left = asyncio.Event()
    requests = [{"type": "http.request", "body": b"{}"}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(app(SCOPE, receive, parts.put))
    async with asyncio.timeout(30):
        assert (await parts.get())["status"] == 200
        assert (await parts.get())["body"] == b"data: 1\n\n"
        assert not body.closed.is_set()
        left.set()
        await body.closed.wait()
        await task


@pytest.mark.parametrize("asked", [True, False])
async def test_a_visitor_who_leaves_before_the_answer_begins_ends_the_request(asked: bool) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    settings = PageSettings(base_url=URL)
    app = make_app(settings, Endpoint(settings, httpx.MockTransport(answer)))
    requests = [{"type": "http.request", "body": b"{}"}] if asked else []

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        if asked:
            await begun.wait()
        return {"type": "http.disconnect"}

    parts: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with asyncio.timeout(30):
        await app(SCOPE, receive, parts.put)
        if asked:
            await ended.wait()
    assert begun.is_set() == asked and (await parts.get())["status"] == 499


async def test_a_body_without_bounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_page.endpoint._MAX_BODY_BYTES", 2**20)
    async with page(lambda request: httpx.Response(200, json={})) as client:
        assert (await client.post("/v1/chat/completions", content=bytes(2**20))).status_code == 200
        response = await client.post("/v1/chat/completions", content=bytes(2**20 + 1))
    assert (response.status_code, response.json()["error"]["message"]) == (413, "The chat has more than 1 MiB.")


async def test_the_page_and_its_security_policy() -> None:
    async with page(lambda request: httpx.Response(500)) as client:
        response = await client.get("/")
        policy = response.headers["content-security-policy"]
        assert "<title>Triton Chat</title>" in response.text
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/vendor/marked/LICENSE")).status_code == 200
        assert (await client.get("/../settings.py")).status_code == 404


class _Models(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"object": "list", "data": [{"id": "a"}]}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize("own", [True, False])
async def test_one_certificate_is_trusted_and_no_other(tmp_path: Path, own: bool) -> None:
    context: ssl.SSLContext = write_certificate(tmp_path / "server.pem")
    write_certificate(tmp_path / "other.pem")
    with HTTPServer(("127.0.0.1", 0), _Models) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        trusted = tmp_path / ("server.pem" if own else "other.pem")
        # The certificate is for another name, as one for a public name is.
        settings = PageSettings(base_url=f"https://localhost:{server.server_port}/v1", api_certificate=trusted)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(make_app(settings)), base_url="http://page"
        ) as client:
            response = await client.get("/v1/models")
        assert response.status_code == (200 if own else 502)
        server.shutdown()
