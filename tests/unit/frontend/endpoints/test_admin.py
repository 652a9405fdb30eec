# SPDX-License-Identifier: Apache-2.0
"""/admin/models: the admin key, and what becomes of the launcher's answers."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.frontend_server import Serving, serving

ADMIN = {"Authorization": "Bearer admin-key"}
MODELS = {"models": {"qwen3": {"state": "ready", "reason": None, "retry_after": None}}}


class Launcher:
    """A launcher at its Unix socket. answer: the status and the body of its answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: tuple[int, Any] = (200, MODELS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.partition(" HTTP/")[0])
        status, body = self.answer
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def administered(folder: Path, **settings: Any) -> AsyncIterator[tuple[Serving, Launcher]]:
    launcher = Launcher()
    path = folder / "control"
    async with (
        await asyncio.start_unix_server(launcher.serve, path),
        serving(admin_key="admin-key", control_socket=str(path), **settings) as served,
    ):
        yield served, launcher


async def test_the_launcher_does_what_it_is_asked(tmp_path: Path) -> None:
    async with administered(tmp_path) as (served, launcher):
        answer = await served.http.get("/admin/models", headers=ADMIN)
        assert (answer.status_code, answer.json()) == (200, MODELS)
        for action in ("load", "unload", "reload"):
            answer = await served.http.post(f"/admin/models/qwen3/{action}", headers=ADMIN)
            assert (answer.status_code, answer.json()) == (200, MODELS)
        assert (await served.http.post("/admin/models/a%20b%3F/load", headers=ADMIN)).status_code == 200
        assert launcher.asked == [
            "GET /models",
            "POST /models/qwen3/load",
            "POST /models/qwen3/unload",
            "POST /models/qwen3/reload",
            "POST /models/a%20b%3F/load",
        ]
        assert (await served.http.post("/admin/models/qwen3/delete", headers=ADMIN)).status_code == 404
        assert (await served.http.post("/admin/models/apply", headers=ADMIN)).status_code == 404
        assert (await served.http.post("/admin/models/%2E%2E/load", headers=ADMIN)).status_code == 404
        assert len(launcher.asked) == 5


@pytest.mark.parametrize(
    ("status", "body", "shown", "code"),
    [
        (404, {"error": "there is no qwen4"}, 404, "model_not_found"),
        (409, {"error": "qwen3 is loading"}, 409, "conflict"),
        (400, {"error": "not so"}, 400, None),
        (500, {"error": "qwen3 has no weights"}, 500, "internal_error"),
        (503, {"error": "shutting down"}, 503, "unavailable"),
    ],
)
async def test_the_launchers_errors(tmp_path: Path, status: int, body: Any, shown: int, code: str | None) -> None:
    async with administered(tmp_path) as (served, launcher):
        launcher.answer = (status, body)
        answer = await served.http.post("/admin/models/qwen3/load", headers=ADMIN)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["message"]) == (shown, code, body["error"])


@pytest.mark.parametrize("body", [b"", b"not JSON"])
async def test_a_launcher_that_answers_nonsense(tmp_path: Path, body: bytes) -> None:
    async with administered(tmp_path) as (served, launcher):
        launcher.answer = (200, body)
        assert (await served.http.get("/admin/models", headers=ADMIN)).status_code == 503


async def test_a_server_without_a_launcher(tmp_path: Path) -> None:
    for settings in ({}, {"control_socket": str(tmp_path / "nobody")}):
        async with serving(admin_key="admin-key", **settings) as served:
            answer = await served.http.get("/admin/models", headers=ADMIN)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


async def test_it_needs_the_admin_key(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"alice {hashlib.sha256(b'alice-key').hexdigest()}\n")
    async with administered(tmp_path, api_keys_file=str(keys)) as (served, launcher):

        async def status(headers: dict[str, str], path: str = "/admin/models", method: str = "GET") -> int:
            return (await served.http.request(method, path, headers=headers)).status_code

        assert await status({}) == 401
        for key in ("alice-key", "guessed"):
            assert await status({"Authorization": f"Bearer {key}"}) == 403
            assert await status({"Authorization": f"Bearer {key}"}, "/admin/models/qwen3/load", "POST") == 403
        assert await status(ADMIN, "/v1/models") == 401, "it is no API key"
        # A page that the administrator's browser shows may not load models.
        assert await status(ADMIN | {"Origin": "http://evil"}, "/admin/models/qwen3/load", "POST") == 403
        assert launcher.asked == []


async def test_it_is_off_by_default() -> None:
    async with serving() as served:
        for method, path in (("GET", "/admin/models"), ("POST", "/admin/models/qwen3/load")):
            answer: httpx.Response = await served.http.request(method, path, headers=ADMIN)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
