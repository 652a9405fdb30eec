# SPDX-License-Identifier: Apache-2.0
"""The log line of each request: its id everywhere, and no private text in it."""

import io
import json
import logging
from collections.abc import AsyncIterator

import pytest

from frontend.telemetry.logs import set_up
from tests.fakes.fake_triton import Call, answer_of, failure, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, Serving, serving


@pytest.fixture
async def served() -> AsyncIterator[Serving]:
    async with serving(api_key=("sk-very-secret",)) as running:
        running.http.headers["Authorization"] = "Bearer sk-very-secret"
        yield running


@pytest.fixture
def lines():
    """A function that returns the JSON lines logged since its last call."""
    root = logging.getLogger()
    before = root.handlers, root.level
    set_up("info", "json")
    written = io.StringIO()
    root.handlers[0].setStream(written)

    def read() -> list[dict]:
        text = written.getvalue()
        written.seek(0)
        written.truncate()
        return [json.loads(one) for one in text.splitlines()]

    yield read
    root.handlers, root.level = before


def of_access(lines: list[dict]) -> list[dict]:
    return [one for one in lines if one["logger"] == "frontend.access"]


async def test_one_line_for_each_request(lines, served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield reply("Hello")
        yield finish(completion=7, prompt=12, num_cached_tokens=4)

    served.triton.script = script
    for stream in (False, True):
        lines()
        headers = {"X-Request-Id": "trace.me/1"}
        response = await served.http.post(CHAT, json=HELLO | {"stream": stream}, headers=headers)
        assert response.headers["X-Request-Id"] == "trace.me/1"
        (entry,) = of_access(lines())
        assert entry["duration"] >= entry["ttft"] > 0
        assert {name: entry[name] for name in entry if name not in ("time", "duration", "ttft")} == {
            "level": "info",
            "logger": "frontend.access",
            "message": "request",
            "request_id": "trace.me/1",
            "method": "POST",
            "path": CHAT,
            "status": 200,
            "outcome": "ok",
            "endpoint": "chat",
            "model": "model",
            "key": "setting:1",
            "prompt_tokens": 12,
            "completion_tokens": 7,
            "cached_tokens": 4,
        }
        assert served.triton.calls[-1].id.startswith("trace.me/1/chatcmpl-")


async def test_refusals_have_a_line_and_an_id(lines, served: Serving) -> None:
    for path, headers, status, outcome in (
        (CHAT, {"Authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        (CHAT, {}, 400, "invalid_request"),
        ("/nowhere", {}, 404, "not_found"),
    ):
        response = await served.http.post(path, json={}, headers=headers)
        (entry,) = of_access(lines())
        assert (response.status_code, entry["status"], entry["outcome"]) == (status, status, outcome)
        assert entry["request_id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize("asked", ["two words", "x" * 129, 'quo"te', "naïve", ""])
async def test_an_id_that_could_forge_something_is_replaced(lines, served: Serving, asked: str) -> None:
    response = await served.http.get("/v1/models", headers={"X-Request-Id": asked.encode()})
    assert response.headers["X-Request-Id"] != asked and len(response.headers["X-Request-Id"]) == 32
    assert of_access(lines())[0]["request_id"] == response.headers["X-Request-Id"]


async def test_two_requests_with_one_id_have_different_triton_ids(served: Serving) -> None:
    for _ in range(2):
        await served.http.post(CHAT, json=HELLO, headers={"X-Request-Id": "same"})
    first, second = [call.id for call in served.triton.calls]
    assert first != second and first.startswith("same/") and second.startswith("same/")


async def test_the_text_of_an_exception_stays_out_of_the_log(
    lines, served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "prompt"  # Not a literal: a traceback shows the source line.

    def broken(*_: object) -> None:
        raise RuntimeError(f"a piece of the {kind}")

    monkeypatch.setattr("frontend.endpoints.chat.clean_messages", broken)
    lines()
    response = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Id": "the-fault"})
    assert (response.status_code, response.headers["X-Request-Id"]) == (500, "the-fault")
    logged = lines()
    assert {one["request_id"] for one in logged} == {"the-fault"}
    assert any("builtins.RuntimeError" in one.get("exception", "") for one in logged)
    assert "piece of the prompt" not in json.dumps(logged)


async def test_an_error_of_the_engine_is_logged_with_the_id(lines, served: Serving) -> None:
    async def script(call: Call) -> AsyncIterator:
        yield failure("CUDA error: out of memory")

    served.triton.script = script
    response = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Id": "engine-fault"})
    assert response.status_code == 500
    errors = [one for one in lines() if one["level"] == "error"]
    assert any("CUDA error" in one["message"] and one["request_id"] == "engine-fault" for one in errors)


async def test_nothing_private_is_logged(lines, served: Serving) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/cat.png?token=private-query"}}
    text = {"type": "text", "text": "private-prompt"}
    served.triton.script = answer_of("private-answer")
    await served.http.post(CHAT, json={"messages": [{"role": "user", "content": "private-prompt"}]})
    await served.http.post(CHAT, json={"messages": [{"role": "user", "content": [text, image]}]})
    await served.http.post(CHAT, json={"messages": [{"role": "private-prompt"}]})
    await served.http.get("/v1/models?api_key=private-query")
    logged = lines()
    assert len(of_access(logged)) == 4
    assert of_access(logged)[1]["images"] == 1
    for private in ("private", "sk-very-secret", "127.0.0.1:1/"):
        assert private not in json.dumps(logged)


async def test_probes_are_quiet(lines, served: Serving) -> None:
    for path in ("/health", "/health/live", "/metrics"):
        await served.http.get(path)
    assert of_access(lines()) == []
