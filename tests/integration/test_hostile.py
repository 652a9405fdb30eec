# SPDX-License-Identifier: Apache-2.0
"""Hostile bodies on the real Triton, tokenizer and template, all at once and among valid requests."""

import asyncio

import httpx
import pytest

from tests.support.hostile_bodies import CHAT, HOSTILE, Hostile
from tests.support.scripted import ScriptedStack

# These machines are slow at times; a wait that ends early is no finding.
PATIENCE_S = 120.0
GOOD = {"messages": [{"role": "user", "content": "How are you?"}], "max_tokens": 16}
ROUNDS = 2
# Made beforehand: some take a second, in which a client in one thread would not read its answers.
BODIES = {hostile.name: hostile.body() for hostile in HOSTILE}
# Each request has a connection of its own: one that lay idle may be closed while the client takes it up again.
CONNECTIONS = httpx.Limits(max_connections=32, max_keepalive_connections=0)


@pytest.fixture
def scripted(scripted_qwen3: ScriptedStack) -> ScriptedStack:
    scripted_qwen3.play({"text": "Fine, thanks."})
    return scripted_qwen3


async def send(client: httpx.AsyncClient, hostile: Hostile) -> tuple[str, int, str]:
    response = await client.post(hostile.path, content=BODIES[hostile.name])
    return hostile.name, response.status_code, response.text[:300]


async def good(client: httpx.AsyncClient) -> str:
    response = await client.post(CHAT, json=GOOD)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


async def test_hostile_and_good_requests_together(scripted: ScriptedStack) -> None:
    async with httpx.AsyncClient(base_url=scripted.stack.url, timeout=PATIENCE_S, limits=CONNECTIONS) as client:
        for _ in range(ROUNDS):
            bad = [asyncio.create_task(send(client, hostile)) for hostile in HOSTILE]
            answers = await asyncio.gather(*(good(client) for _ in range(20)))
            assert answers == ["Fine, thanks."] * 20
            outcomes = await asyncio.gather(*bad)
            # A 200 is fine too: the scripted engine obeys no guide, and some of these are merely odd.
            assert [one for one in outcomes if one[1] not in (200, 400, 404, 413)] == []
        ready = await client.get("/health/ready")
        assert ready.status_code == 200, ready.text
        assert await good(client) == "Fine, thanks."


async def test_requests_that_must_not_reach_the_engine(scripted: ScriptedStack) -> None:
    """Requests that would keep the engine's grammar compiler or its steps busy are refused earlier."""
    names = {
        "a wide object", "a long literal", "many values", "a pattern in a schema", "bounded properties", "nested counts",
        "deep groups", "many optional characters", "a long pattern", "a deep grammar", "many rules", "long choices",
    }  # fmt: skip
    guided = [one for one in HOSTILE if one.name in names]
    assert len(guided) == len(names)
    async with httpx.AsyncClient(base_url=scripted.stack.url, timeout=PATIENCE_S, limits=CONNECTIONS) as client:
        outcomes = [await send(client, one) for one in guided]
    assert [one for one in outcomes if one[1] != 400] == []
