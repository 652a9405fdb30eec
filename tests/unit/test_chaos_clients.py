# SPDX-License-Identifier: Apache-2.0
"""The clients of `python -m tests.soak chaos` tell right answers from wrong ones."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.fake_triton import Call, FakeTriton, Served, failure, finish, reply
from tests.fakes.frontend_server import serving
from tests.soak.chaos import ChaosResult, Clients, story

pytestmark = pytest.mark.asyncio


async def right(call: Call) -> AsyncIterator[Any]:
    """What the scripted engine says."""
    kind, number = prompted(call)
    if kind == "tool":
        arguments = json.dumps({"number": f"{number:02}"})
        yield reply(
            tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]
        )
        yield reply(tool_calls=[{"index": 0, "function": {"arguments": arguments}}])
        yield finish("tool_calls")
        return
    for word in re.findall(r"\S+\s*", story(number) if kind == "story" else "pong"):
        yield reply(word)
    yield finish()


async def wrong(call: Call) -> AsyncIterator[Any]:
    """The same with a word that was lost."""
    kind, number = prompted(call)
    yield reply(story(number).replace("n1", "", 1) if kind == "story" else "")
    yield finish()


async def failing(call: Call) -> AsyncIterator[Any]:
    """Half an answer and an error."""
    kind, number = prompted(call)
    if kind == "story":
        yield reply(story(number)[:9])
    yield failure("an engine that fails")


def prompted(call: Call) -> tuple[str, int]:
    found = re.search(r"(?:tell|call) (story|tool) (\d+)", call.inputs["messages"][0].decode())
    return (found[1], int(found[2])) if found else ("ping", 0)


async def load(script: Any) -> ChaosResult:
    """Some requests of all kinds."""
    triton, result = FakeTriton(), ChaosResult()
    triton.script = script
    triton.served["embedder"] = Served("embedder.", {"kind": "embedding", "names": ["embedder"]})
    async with serving(triton) as one:
        clients = Clients(one.url, "0", result, text="model", seeing="model", embedding="embedder")
        await clients.run(4, lambda: result.requests >= 40, lambda: "nothing")
    return result


async def test_right_answers() -> None:
    result = await load(right)
    assert result.wrong == []
    assert set(result.ends) == {"ok", "aborted"}


async def test_wrong_answers() -> None:
    assert (await load(wrong)).ends["wrong"] > 10


async def test_errors_are_counted_by_kind() -> None:
    result = await load(failing)
    assert result.wrong == []
    assert {"500 internal_error", "in a stream: internal_error", "ok"} <= set(result.ends)
