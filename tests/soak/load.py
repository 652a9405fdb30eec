# SPDX-License-Identifier: Apache-2.0
"""A closed loop of clients that send the next request after an answer, or after the Retry-After of a refusal."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp


@dataclass(slots=True)
class Outcome:
    """Times in seconds: ttft and latency of admitted requests, refusal of each 503, `took` of the whole run.

    others: statuses of all other answers.
    """

    ttft: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    refusal: list[float] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    took: float = 0.0


async def closed_loop(url: str, model: str, tokens: int, clients: int, seconds: float) -> Outcome:
    """Load a server for some seconds, then wait for the requests in progress."""
    outcome, begun = Outcome(), time.monotonic()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300)) as session:

        async def client(index: int) -> None:
            # Spread the starts over one second.
            await asyncio.sleep(index / clients)
            while time.monotonic() < begun + seconds:
                await asyncio.sleep(await _one(session, url, model, tokens, outcome))

        await asyncio.gather(*[client(index) for index in range(clients)])
    outcome.took = time.monotonic() - begun
    return outcome


async def _one(session: aiohttp.ClientSession, url: str, model: str, tokens: int, outcome: Outcome) -> float:
    """Send one request; returns the seconds to wait before the next."""
    body = {"model": model, "messages": [{"role": "user", "content": "Go on."}], "max_tokens": tokens, "stream": True}
    sent, first = time.monotonic(), None
    async with session.post(f"{url}/v1/chat/completions", json=body | {"ignore_eos": True}) as response:
        if response.status == 503:
            await response.read()
            outcome.refusal.append(time.monotonic() - sent)
            return float(response.headers["Retry-After"])
        if response.status != 200:
            outcome.others.append(response.status)
            return 1.0
        async for line in response.content:
            if first is None and b'"content":"' in line and b'"content":""' not in line:
                first = time.monotonic() - sent
    outcome.latency.append(time.monotonic() - sent)
    outcome.ttft.append(outcome.latency[-1] if first is None else first)
    return 0.0


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank; NaN without values."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * percent / 100))] if ranked else float("nan")
