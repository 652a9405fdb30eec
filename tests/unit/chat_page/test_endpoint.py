# SPDX-License-Identifier: Apache-2.0
"""The page's way to the endpoint: what is passed on, what is not, and whom it trusts."""

import asyncio
import json
import shutil
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from chat_page import endpoint
from chat_page.endpoint import Endpoint
from chat_page.server import make_app
from chat_page.settings import PageSettings
from tests.fakes.certificate import write_certificate

DOCS = Path(__file__).parents[3] / "docs"
URL = "http://server/v1"
PAGE = "http://127.0.0.1:7860"
HEADERS = [(b"host", b"127.0.0.1:7860")]
SCOPE = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": HEADERS, "query_string": b""}
SCOPE |= {"asgi": {"version": "3.0"}, "server": ("page", 80), "scheme": "http", "http_version": "1.1"}
Answer = Callable[[httpx.Request], httpx.Response]


def page(answer: Answer, **settings: Any) -> httpx.AsyncClient:
    """A client of the page before an endpoint that answers so."""
    options = PageSettings(base_url=URL, **settings)
    app = make_app(options, Endpoint(options, httpx.MockTransport(answer)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=PAGE)


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


@pytest.mark.parametrize("name", ["authorization", "content-type"])
async def test_headers_are_passed_on_byte_for_byte(name: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        (value,) = (value for key, value in request.headers.raw if key.lower() == name.encode())
        return httpx.Response(401, headers=[(b"x-request-id", value)], json={})

    for value in ("Bearer ключ".encode(), "Bearer clé".encode("latin-1")):
        async with page(answer) as client:
            response = await client.post("/v1/chat/completions", content=b"{}", headers=[(name.encode(), value)])
        assert response.status_code == 401
        assert (b"x-request-id", value) in response.headers.raw


async def test_a_header_that_cannot_be_sent_is_the_visitors_fault() -> None:
    async with serving_models() as url:
        options = PageSettings(base_url=url)
        transport = httpx.ASGITransport(make_app(options))
        async with httpx.AsyncClient(transport=transport, base_url=PAGE) as client:
            response = await client.get("/v1/models", headers=[(b"authorization", b"Bearer a\nb")])
    assert (response.status_code, response.json()["error"]["code"]) == (400, "bad_header")


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


@pytest.mark.parametrize(
    ("listens", "host", "status"),
    [
        ("127.0.0.1", "127.0.0.1:7860", 200),
        ("127.0.0.1", "localhost:7860", 200),
        ("127.0.0.1", "LOCALHOST", 200),
        ("127.0.0.1", "[::1]:7860", 200),
        ("127.0.0.2", "127.0.0.2:7860", 200),
        ("::1", "[::1]:7860", 200),
        ("localhost", "localhost:7860", 200),
        ("127.0.0.1", "evil.example:7860", 400),
        ("127.0.0.1", "localhost.evil.example:7860", 400),
        ("localhost", "evil.example:7860", 400),
        ("::1", "evil.example:7860", 400),
        ("127.0.0.1", "127.0.0.2:7860", 400),
        ("0.0.0.0", "chat.example", 200),
        ("::", "chat.example", 200),
        ("", "chat.example", 200),
    ],
)
async def test_on_loopback_no_other_name_leads_to_the_page(listens: str, host: str, status: int) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers["authorization"])
        return httpx.Response(200, json={})

    async with page(answer, host=listens, api_key="mine") as client:
        for path in ("/", "/page.json", "/v1/models"):
            assert (await client.get(path, headers={"host": host})).status_code == status
    assert asked == ["Bearer mine"] * (status == 200)


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


async def test_a_body_somewhat_over_the_apis_limit_is_the_apis_to_refuse() -> None:
    async with page(lambda request: httpx.Response(418)) as client:
        for mebibytes, status in ((32.5, 418), (34, 413)):
            response = await client.post("/v1/chat/completions", content=bytes(int(mebibytes * 2**20)))
            assert response.status_code == status


@pytest.mark.parametrize(
    ("page_of_the_docs", "words"),
    [("http.md", "A body over {} MiB is a 413"), ("chat-page.md", "the page passes on {} MiB")],
)
def test_the_limit_in_the_documentation(page_of_the_docs: str, words: str) -> None:
    text = (DOCS / page_of_the_docs).read_text(encoding="utf-8")
    assert words.format(endpoint._MAX_BODY_BYTES >> 20) in " ".join(text.split())


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


@asynccontextmanager
async def serving_models(context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server of one model, with TLS if there is a context; gives its base URL."""
    with HTTPServer(("127.0.0.1", 0), _Models) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"{'http' if context is None else 'https'}://localhost:{server.server_port}/v1"
        finally:
            server.shutdown()


@pytest.mark.parametrize("own", [True, False])
async def test_one_certificate_is_trusted_and_no_other(tmp_path: Path, own: bool) -> None:
    context: ssl.SSLContext = write_certificate(tmp_path / "server.pem")
    write_certificate(tmp_path / "other.pem")
    # The certificate is for another name, as one for a public name is.
    async with serving_models(context) as url:
        trusted = tmp_path / ("server.pem" if own else "other.pem")
        settings = PageSettings(base_url=url, api_certificate=trusted)
        transport = httpx.ASGITransport(make_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url=PAGE) as client:
            response = await client.get("/v1/models")
    assert response.status_code == (200 if own else 502)


async def test_a_renewed_certificate_is_trusted_without_a_restart(tmp_path: Path) -> None:
    old, new, trusted = (tmp_path / f"{name}.pem" for name in ("old", "new", "trusted"))
    context = write_certificate(old)
    write_certificate(new)
    shutil.copy(old, trusted)
    async with serving_models(context) as url:
        settings = PageSettings(base_url=url, api_certificate=trusted)
        transport = httpx.ASGITransport(make_app(settings))
        async with httpx.AsyncClient(transport=transport, base_url=PAGE) as client:

            async def status() -> int:
                return (await client.get("/v1/models")).status_code

            assert await status() == 200
            # What is no certificate, or no file, changes nothing.
            for spoil in (lambda: replace_text(trusted, "half"), trusted.unlink):
                spoil()
                assert await status() == 200
            shutil.copy(new, trusted)
            assert await status() == 502
            context.load_cert_chain(new)
            assert await status() == 200


def replace_text(file: Path, text: str) -> None:
    """Replace a file, as a renewal does."""
    other = file.with_suffix(".new")
    other.write_text(text)
    other.replace(file)
