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
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import orjson

from common.command_line import Parser
from scripts.bench import machine, processes
from scripts.bench.errors import BenchError
from scripts.bench.options import parse_with_serve_flags, positive
from scripts.bench.targets import NAME, RunningTarget, Starter
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
    parser = Parser(prog="triton-chat bench embeddings", description=about, epilog=_EXAMPLE, allow_abbrev=False)
    add = parser.add_argument
    add("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    add("--words", type=positive, default=48, help="of each input, about as many tokens (default: %(default)s)")
    add("--seconds", type=positive, default=5, help="of each load and round (default: %(default)s)")
    add("--rounds", type=positive, default=6, help="medians are over these (default: %(default)s)")
    add("--out", type=Path, default=Path(".cache/bench-embeddings"), help="default: %(default)s")
    return parse_with_serve_flags(parser, arguments)


def measure(options: argparse.Namespace) -> int:
    """Measure, print and save; returns 1 if the servers' embeddings differ. Raises BenchError if a request fails."""
    options.out.mkdir(parents=True, exist_ok=True)
    logs = ["--log-dir", str(options.out / "logs")]
    flags = ["--model", options.model, "--kind", "embedding", "--served-model-name", NAME, *FREE_PORTS, *logs]
    stack = Stack([*flags, *options.serve_flags])
    starter = Starter(lambda: stack, str(stack.model.checkpoint.path), ("--runner", "pooling"), options.out)
    with starter.start((OURS,)) as ours, starter.start((PEER,)) as peer:
        targets = {OURS: ours, PEER: peer}
        commands = {name: target.commands for name, target in targets.items()}
        same = asyncio.run(_agree([target.url for target in targets.values()]))
        results = [one for number in range(options.rounds) for one in _round(number, targets, options)]
    rows = _rows(results)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    about = {"command": options.line, "commands": commands, "machine": machine.hardware()}
    saved = about | {"versions": machine.versions(ours.tritonserver), "rows": rows, "results": results}
    (options.out / "results.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
    print("the servers' embeddings agree" if same else "THE SERVERS' EMBEDDINGS DIFFER")
    return 0 if same else 1


def _round(number: int, targets: Mapping[str, RunningTarget], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure each load on each server, in another order in each round."""
    results: list[dict[str, Any]] = []
    for load in LOADS:
        for name in list(targets)[:: 1 if number % 2 == 0 else -1]:
            # Other texts each time, which no cache of prefixes has.
            chosen = random.Random(f"{number} {name} {load}")  # nosec B311 # texts to embed
            before = processes.snapshot(targets[name].roots)
            rate, latency, made = asyncio.run(_load(targets[name].url, load, chosen, options))
            spent = processes.spent(before, processes.snapshot(targets[name].roots))
            cpu = {role: 1000 * seconds / made for role, seconds in spent.items()}
            about = {"round": number + 1, "server": name, "at_once": load[0], "inputs": load[1]}
            figures = {"embeddings_per_s": rate, "latency_ms_p50": latency, "cpu_s_per_1k_embeddings": cpu}
            results.append(about | figures)
            print(f"{about}: {rate:.1f} embeddings/s, p50 {latency:.1f} ms", flush=True)
    return results


async def _load(
    url: str, load: tuple[int, int], chosen: random.Random, options: argparse.Namespace
) -> tuple[float, float, int]:
    """Return embeddings/s, the median of a request's milliseconds, and all embeddings of a closed loop.

    Those of its first second, which warms the server up, count only among all.
    """
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
        warmed_up = len(latencies)
        latencies.clear()
        begun = time.monotonic()
        await asyncio.gather(*(ask(begun + options.seconds) for _ in range(at_once)))
        took = time.monotonic() - begun
    made = (warmed_up + len(latencies)) * inputs
    return len(latencies) * inputs / took, 1000 * median(latencies), made


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
    """One row for each load: medians over the rounds, and of the ratios in each round, whose neighbours are alike."""
    rows: list[dict[str, Any]] = []
    for at_once, inputs in LOADS:
        row: dict[str, Any] = {"at_once": at_once, "inputs": inputs}
        rates: dict[str, list[float]] = {}
        for name in (OURS, PEER):
            mine = [one for one in results if (one["at_once"], one["inputs"], one["server"]) == (at_once, inputs, name)]
            rates[name] = [one["embeddings_per_s"] for one in mine]
            row[name] = round(median(rates[name]), 1)
            row[f"{name}_ms_p50"] = round(median(one["latency_ms_p50"] for one in mine), 1)
            roles = sorted({role for one in mine for role in one["cpu_s_per_1k_embeddings"]})
            row[f"{name}_cpu_s_per_1k"] = {
                role: round(median(one["cpu_s_per_1k_embeddings"].get(role, 0.0) for one in mine), 2) for role in roles
            }
        ratios = [ours / peer for ours, peer in zip(rates[OURS], rates[PEER], strict=True)]
        rows.append(row | {"ratio": round(median(ratios), 2), "ratios": [round(one, 2) for one in ratios]})
    return rows
