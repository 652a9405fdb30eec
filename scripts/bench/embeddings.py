# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench embeddings`: embeddings per second of this stack and of `vllm serve` on the same checkpoint.

Both servers are up at once and are asked in turn, because the speed of a shared machine changes from minute to minute.
The client is one process that asks for base64, as OpenAI's does.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import orjson

from scripts.bench import machine
from scripts.bench.errors import BenchError
from scripts.bench.options import parse_with_serve_flags, positive
from scripts.bench.targets import NAME, start
from scripts.launcher import FREE_PORTS, Stack
from scripts.launcher.options import DEFAULT_MODEL

OURS, PEER = "triton-chat", "vllm-serve"
# Requests at once, and inputs of each.
LOADS = ((1, 1), (32, 1), (1, 32))
_WORDS = ("river", "stone", "paper", "seven", "garden", "engine", "letter", "summer", "window", "copper", "and", "of")
_EXAMPLE = "--convert embed makes an embedding model of a chat model; any other flag is one of `triton-chat serve`."


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; unknown flags become `serve_flags`, for the stack, and its engine options for both."""
    about = (__doc__ or "").partition("\n\n")[2]
    parser = argparse.ArgumentParser(
        prog="triton-chat bench embeddings", description=about, epilog=_EXAMPLE, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    add("--words", type=positive, default=48, help="of each input, about as many tokens (default: %(default)s)")
    add("--seconds", type=positive, default=10, help="of each load and round (default: %(default)s)")
    add("--rounds", type=positive, default=3, help="medians are over these (default: %(default)s)")
    add("--out", type=Path, default=Path(".cache/bench-embeddings"), help="default: %(default)s")
    return parse_with_serve_flags(parser, arguments)


def measure(options: argparse.Namespace) -> int:
    """Measure, print and save; returns 1 if the servers' embeddings differ. Raises BenchError if a request fails."""
    options.out.mkdir(parents=True, exist_ok=True)
    logs = ["--log-dir", str(options.out / "logs")]
    flags = ["--model", options.model, "--kind", "embedding", "--served-model-name", NAME, *FREE_PORTS, *logs]
    stack = Stack([*flags, *options.serve_flags])
    model = str(stack.model.checkpoint.path)
    with (
        start((OURS,), stack, model, (), options.out) as ours,
        start((PEER,), stack, model, ("--runner", "pooling"), options.out) as peer,
    ):
        urls = {OURS: ours.url, PEER: peer.url}
        commands = {OURS: ours.commands, PEER: peer.commands}
        same = asyncio.run(_agree(list(urls.values())))
        results = [one for number in range(options.rounds) for one in _round(number, urls, options)]
    rows = _rows(results)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    about = {"command": options.line, "commands": commands, "machine": machine.hardware()}
    saved = about | {"versions": machine.versions(ours.tritonserver), "rows": rows, "results": results}
    (options.out / "results.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
    print("the servers' embeddings agree" if same else "THE SERVERS' EMBEDDINGS DIFFER")
    return 0 if same else 1


def _round(number: int, urls: dict[str, str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each load on each server, in another order in each round."""
    results: list[dict[str, Any]] = []
    for load in LOADS:
        for name in list(urls)[:: 1 if number % 2 == 0 else -1]:
            # Other texts each time, which no cache of prefixes has.
            chosen = random.Random(f"{number} {name} {load}")  # nosec B311 # texts to embed
            rate, latency = asyncio.run(_load(urls[name], load, chosen, options))
            about = {"round": number + 1, "server": name, "at_once": load[0], "inputs": load[1]}
            results.append(about | {"embeddings_per_s": rate, "latency_ms_p50": latency})
            print(f"{about}: {rate:.1f} embeddings/s, p50 {latency:.1f} ms", flush=True)
    return results


async def _load(
    url: str, load: tuple[int, int], chosen: random.Random, options: argparse.Namespace
) -> tuple[float, float]:
    """Return embeddings/s, and the median of a request's milliseconds, of a closed loop."""
    at_once, inputs = load
    latencies: list[float] = []

    async def ask(until: float) -> None:
        while time.monotonic() < until:
            texts = [" ".join(chosen.choices(_WORDS, k=options.words)) for _ in range(inputs)]
            sent = time.monotonic()
            await _embed(session, url, texts)
            latencies.append(time.monotonic() - sent)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(ask(time.monotonic() + 1) for _ in range(at_once)))
        latencies.clear()
        begun = time.monotonic()
        await asyncio.gather(*(ask(begun + options.seconds) for _ in range(at_once)))
        took = time.monotonic() - begun
    return len(latencies) * inputs / took, 1000 * median(latencies)


async def _embed(session: aiohttp.ClientSession, url: str, texts: Sequence[str], form: str = "base64") -> Any:
    body = orjson.dumps({"model": NAME, "input": texts, "encoding_format": form})
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/v1/embeddings", data=body, headers=headers) as response:
        if response.status != 200:
            raise BenchError(f"{url}: HTTP {response.status}: {(await response.text())[:300]}")
        return orjson.loads(await response.read())["data"]


async def _agree(urls: Sequence[str]) -> bool:
    """Whether all servers have the same embeddings of one text, up to the rounding of half precision."""
    async with aiohttp.ClientSession() as session:
        rows = [(await _embed(session, url, [" ".join(_WORDS)], "float"))[0]["embedding"] for url in urls]
    return all(abs(one - other) < 0.01 for one, other in zip(*rows, strict=True))


def _rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each load: medians over the rounds, and their ratio."""
    rows: list[dict[str, Any]] = []
    for at_once, inputs in LOADS:
        row: dict[str, Any] = {"at_once": at_once, "inputs": inputs}
        for name in (OURS, PEER):
            mine = [one for one in results if (one["at_once"], one["inputs"], one["server"]) == (at_once, inputs, name)]
            row[name] = round(median(one["embeddings_per_s"] for one in mine), 1)
            row[f"{name}_ms_p50"] = round(median(one["latency_ms_p50"] for one in mine), 1)
        rows.append(row | {"ratio": round(row[OURS] / row[PEER], 2)})
    return rows
