# SPDX-License-Identifier: Apache-2.0
"""The times of a request that a client asks for by X-Request-Metrics."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.fake_triton import Call, finish, reply
from tests.fakes.frontend_server import CHAT, HELLO, Serving
from tests.support.doc_blocks import codes, rows, section

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASKING = {"X-Request-Metrics": "true"}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: HELLO,
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
}
NAMES = {codes(cells[0])[0] for cells in rows(section("api.md", "Times of a request"))}


@pytest.fixture
def served(served: Serving) -> Serving:
    served.triton.script = three
    return served


async def three(call: Call) -> AsyncIterator[Any]:
    """An answer of three tokens."""
    for text in ("one", " two", " three"):
        yield reply(text)
    yield finish(completion=3)


def check(times: dict[str, float]) -> None:
    assert set(times) == NAMES
    assert all(value >= 0 for value in times.values())
    first, rest = times["time_to_first_token_ms"], times["generation_time_ms"]
    assert times["queue_time_ms"] <= first and first + rest <= times["total_time_ms"] + 0.01
    assert times["mean_itl_ms"] == pytest.approx(rest / 2, abs=0.001)
    assert times["tokens_per_second"] > 0


@pytest.mark.parametrize("path", BODIES)
async def test_whole_answers(served: Serving, path: str) -> None:
    response = await served.http.post(path, json=BODIES[path], headers=ASKING)
    times = response.json()["metrics"]
    check(times)
    header = dict(re.findall(r"(\w+);dur=([0-9.]+)", response.headers["Server-Timing"]))
    assert float(header["queue"]) == times["queue_time_ms"] and float(header["ttft"]) == times["time_to_first_token_ms"]
    assert float(header["total"]) >= times["total_time_ms"]
    assert served.triton.calls[0].inputs["stream"] == [True]


@pytest.mark.parametrize("path", BODIES)
async def test_streams(served: Serving, path: str) -> None:
    options = {} if path == "/v1/responses" else {"stream_options": {"include_usage": True}}
    response = await served.http.post(path, json=BODIES[path] | {"stream": True} | options, headers=ASKING)
    data = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: {")]
    last = json.loads(data[-1])
    check((last["response"] if path == "/v1/responses" else last)["metrics"])
    assert not any('"metrics"' in one for one in data[:-1])
    assert "Server-Timing" not in response.headers


@pytest.mark.parametrize("headers", [{}, {"X-Request-Metrics": "false"}])
async def test_nobody_else_gets_them(served: Serving, headers: dict[str, str]) -> None:
    response = await served.http.post(CHAT, json=HELLO, headers=headers)
    assert "metrics" not in response.json() and "Server-Timing" not in response.headers
    assert served.triton.calls[0].inputs["stream"] == [False]


async def test_the_choices_of_one_request_have_no_times_of_their_own(served: Serving) -> None:
    response = await served.http.post(CHAT, json=HELLO | {"n": 2}, headers=ASKING)
    assert "metrics" not in response.json() and "total;dur=" in response.headers["Server-Timing"]


async def test_messages_have_the_header(served: Serving) -> None:
    response = await served.http.post("/v1/messages", json=HELLO | {"max_tokens": 5}, headers=ASKING)
    assert "metrics" not in response.json() and "ttft;dur=" in response.headers["Server-Timing"]


async def test_an_answer_without_content_has_no_first_token(served: Serving) -> None:
    async def nothing(call: Call) -> AsyncIterator[Any]:
        yield finish(completion=0)

    served.triton.script = nothing
    response = await served.http.post(CHAT, json=HELLO, headers=ASKING)
    assert response.json()["metrics"]["time_to_first_token_ms"] is None
    assert "ttft" not in response.headers["Server-Timing"]


async def test_any_other_value_is_refused(served: Serving) -> None:
    response = await served.http.post(CHAT, json=HELLO, headers={"X-Request-Metrics": "all"})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "X-Request-Metrics")
