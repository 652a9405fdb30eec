# SPDX-License-Identifier: Apache-2.0
"""A closed-loop load of streamed completions from several client processes, so that the server is what is measured."""

import asyncio
import json
import multiprocessing
import random
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

PROMPT_IDS = range(10, 40000)


@dataclass(frozen=True, slots=True)
class Load:
    """What one contender is asked. Lengths in tokens; `concurrency` streams at once over all processes."""

    url: str
    model: str
    concurrency: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    processes: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One request, times in seconds on one clock: sent, each content chunk's arrival, and the last of them."""

    sent: float
    chunks: tuple[float, ...]
    tokens: int


def run(load: Load) -> list[Sample]:
    """Run the load; raises RuntimeError where a request failed."""
    workers = min(load.processes, load.concurrency)
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        parts = pool.starmap(_work, [(load, index, workers) for index in range(workers)])
    return [sample for part in parts for sample in part]


def _work(load: Load, worker: int, workers: int) -> list[Sample]:
    return asyncio.run(_closed_loop(load, worker, workers))


async def _closed_loop(load: Load, worker: int, workers: int) -> list[Sample]:
    share = range(worker, load.requests, workers)
    streams = load.concurrency // workers + (worker < load.concurrency % workers)
    gate = asyncio.Semaphore(streams)
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(index: int) -> Sample:
            async with gate:
                return await _request(session, load, index)

        return list(await asyncio.gather(*[one(index) for index in share]))


async def _request(session: aiohttp.ClientSession, load: Load, index: int) -> Sample:
    chooser = random.Random(load.seed * 1_000_003 + index)  # nosec B311 # no secret is drawn
    body = {
        "model": load.model,
        "prompt": [chooser.choice(PROMPT_IDS) for _ in range(load.prompt_tokens)],
        "max_tokens": load.output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent, chunks, usage = time.monotonic(), [], None
    async with session.post(f"{load.url}/v1/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{load.url} answered {response.status}: {(await response.text())[:500]}")
        async for line in response.content:
            if line.startswith(b"data: {"):
                event: dict[str, Any] = json.loads(line[6:])
                if event.get("choices") and event["choices"][0]["text"]:
                    chunks.append(time.monotonic())
                usage = event.get("usage") or usage
    if not usage or not chunks:
        raise RuntimeError(f"{load.url} ended a stream without usage or text")
    return Sample(sent, tuple(chunks), usage["completion_tokens"])
