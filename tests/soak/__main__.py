# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak aborts [--engine scripted|default] [--count N]`, `... overload`, `... pictures [--count N]`,
`... stalls`, `... upgrades`, `... attack [--requests N] [--seed S]`, `... chaos [--minutes M] [--seed S]`.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from scripts.launcher import FREE_PORTS, Stack
from scripts.split.splitter import split_checkpoint
from tests.soak.aborts import Aborter
from tests.soak.attack import Tally, attack
from tests.soak.chaos import ChaosResult, Clients, Deeds, left_over, living, rules, run_chaos
from tests.soak.gauges import AT_REST, busy, memory, read_gauges, wait_at_rest
from tests.soak.load import Outcome, closed_loop, percentile
from tests.soak.pictures import ask
from tests.soak.stalls import HEADER, REAL, SCRIPTED, measure_stops
from tests.soak.stalls import rules as stall_rules
from tests.soak.triton_attack import attack_triton
from tests.soak.upgrades import upgrade
from tests.support.pooling_checkpoints import make_qwen3_embedding
from tests.support.scripted import PAIR, scripted_pair, scripted_stack
from tests.support.tiny_vlms import TINY_VLMS, make_tiny_vlm
from tests.support.vlm_checkpoints import make_internvl

TOKENIZERS = Path(os.environ.get("TRITON_CHAT_TOKENIZERS", ".cache/tokenizers"))
RECOVERY_S = 600.0  # within which everything must serve again after chaos
REST_S = 90.0  # within which everything must have stopped
SAMPLES = 10  # of memory during a run
_KEY = "the-admin-key"  # of the attacked stack
# The overloaded engine: 8 slots at 50 tokens/s each, 25 tokens a request, so 16 requests/s.
SLOTS, TOKEN_S, TOKENS = 8, 0.02, 25
ON_AND_ON = {"text": "on and on ", "repeat": True, "delay_s": TOKEN_S}
LIMITS: Mapping[str, Mapping[str, int]] = {
    "no limits": {"max_in_flight": 10_000, "max_queued": 0},
    "8 in flight, 0 queued": {"max_in_flight": SLOTS, "max_queued": 0},
    "8 in flight, 8 queued": {"max_in_flight": SLOTS, "max_queued": SLOTS},
}


def main(arguments: Sequence[str]) -> int:
    """Run one of the commands."""
    options = _parser().parse_args(arguments)
    if options.command == "aborts":
        soak(options.engine, options.count, options.concurrency, options.seed)
    elif options.command == "attack":
        return attack_stack(options.requests, options.triton_requests, options.seed, options.processes)
    elif options.command == "chaos":
        return chaos(options.minutes, options.seed, options.clients, several=options.several)
    elif options.command == "pictures":
        pictures(options.family, options.count, options.concurrency)
    elif options.command == "stalls":
        stalls(options.engine, options.processes, options.seconds)
    elif options.command == "upgrades":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(upgrade(TOKENIZERS / "qwen3", Path(folder), _say))
    else:
        overload(options.seconds)
    return 0


def soak(engine: str, count: int, concurrency: int, seed: int) -> None:
    """Abort requests and print the memory at intervals; raises TimeoutError if requests are left at the end."""
    with _stack(engine) as stack:
        aborter = Aborter(stack.url, stack.model_names[0], 400, seed)

        def load(done: int, number: int) -> None:
            asyncio.run(aborter.run(number, concurrency))

        took = _sampled(stack, "aborted", count, min(500, count // 4), load)
        _say(f"{count} aborts in {took:.0f} s. Ends: {dict(aborter.counts.most_common())}")


def pictures(family: str, count: int, concurrency: int) -> None:
    """Ask about different pictures and print the memory at intervals; raises TimeoutError if requests are left.

    family: one of tests/support/tiny_vlms.py, on its own processor and in the real engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_tiny_vlm(family, Path(folder) / family)
        # Small, so that the caches of pictures are full before the first row.
        flags = ["--max-model-len", "1024", "--mm-processor-cache-gb", "0.01", "--log-dir", f"{folder}/logs"]
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
        with Stack([str(checkpoint), *flags, *FREE_PORTS], environment=environment) as stack:

            def load(first: int, number: int) -> None:
                asyncio.run(ask(stack.url, stack.model_names[0], first, number, concurrency))

            took = _sampled(stack, "pictures", count, min(500, count), load)
            _say(f"{count} pictures in {took:.0f} s.")


def attack_stack(count: int, triton_count: int, seed: int, processes: int) -> int:
    """Send made-up requests to the frontend and to Triton, and print what came of them; returns 1 if a fault was found.

    Raises TimeoutError if requests are left at the end.
    """
    settings = {"ADMIN_KEY": _KEY, "TRUST_REQUEST_CHAT_TEMPLATE": "true", "MAX_IN_FLIGHT": "4096"}
    with _stack(
        "scripted",
        rule={"text": "<think>Hm.</think>Fine, thanks."},
        **{f"TRITON_CHAT_{name}": value for name, value in settings.items()},
    ) as stack:
        # Not `postprocessing`: its inputs are what an engine says, and it waits for the rest of each answer.
        models = ("ensemble", "preprocessing", "vit", "tensorrt_llm")
        http, triton = Tally(), Tally()

        def send(done: int, number: int) -> None:
            http.add(attack(stack.url, stack.model_names, number, f"{seed}.{done}", processes=processes, key=_KEY))

        def send_triton(done: int, number: int) -> None:
            triton.add(asyncio.run(attack_triton(stack.grpc_url, models, number, f"{seed}.{done}")))

        for what, total, load, tally in (
            ("to the frontend", count, send, http),
            ("to Triton", triton_count, send_triton, triton),
        ):
            if total:
                took = _sampled(stack, what, total, min(1000, total // 4), load)
                _say(f"{tally.requests} requests {what} in {took:.0f} s: {dict(tally.statuses.most_common())}")
                _say(f"Errors in streams: {dict(tally.errors)}")
        findings = {**http.findings, **triton.findings}
        for fault, request in findings.items():
            _say(f"FAULT {fault}\n{request}")
    return 1 if findings else 0


# What chaos does, and how often in relation to the others. The death of tritonserver costs the most time.
DEEDS = {
    **{f"kill {one}": 2 for one in ("frontend", "preprocessing", "vit", "postprocessing")},
    **{
        f"stop {one}": 3
        for one in ("frontend", "preprocessing", "vit", "tensorrt_llm", "postprocessing", "tritonserver")
    },
    **{"kill tensorrt_llm": 1, "kill embedding": 1, "kill core": 1, "kill tritonserver": 1, "stop embedding": 1},
    **{"stop core": 1, "fill frontend": 2},
}


def chaos(minutes: float, seed: str, clients: int, *, several: bool) -> int:
    """Kill and stop processes under a load whose answers are known; prints what came of it.

    several: serve three models, one of them of embeddings, instead of one that sees. Returns 1 if an answer was wrong, a
    request hung or a process was left. Raises TimeoutError if requests are left, or a model does not come back.
    """
    result = ChaosResult()
    with _chaotic_stack(several) as (stack, models):
        load = Clients(stack.url, seed, result, **models)
        _memory_header(stack, "minutes")
        _memory_row(stack, 0)
        begun = time.monotonic()
        try:
            run_chaos(stack, load, Deeds(stack, seed, result, DEEDS), 60 * minutes, concurrency=clients, seed=seed)
            took = time.monotonic() - begun
            _supervise_until(stack, lambda: _serves(stack, models) and not busy(read_gauges(stack)))
        finally:
            _show(result, time.monotonic() - begun)
        _memory_row(stack, f"{took / 60:.0f}")
        seen = list(living(stack))
    left = left_over(seen)
    _say(f"Processes left: {left}")
    return 1 if result.wrong or result.hangs or left else 0


@contextmanager
def _chaotic_stack(several: bool) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack with a scripted model that sees, and the names of its models as `Clients` takes them."""
    more = ["--frontends", "2", "--restarts", "100000"]
    with tempfile.TemporaryDirectory() as name:
        folder, tokenizer = Path(name), TOKENIZERS / "qwen3"
        seeing = split_checkpoint(make_internvl(folder / "whole", tokenizer).path, folder / "seeing")
        if not several:
            with scripted_stack("internvl2_5", seeing, folder / "stack", more=more, clean_stop=False) as one:
                one.play(*rules())
                yield one.stack, dict.fromkeys(("text", "seeing"), one.stack.model_names[0])
            return
        embedder = make_qwen3_embedding(tokenizer, folder / "embedder")
        others = {"embedder": {"model": str(embedder), "max_model_len": 1024}}
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1"}
        with scripted_pair(
            tokenizer, folder / "stack", second=seeing, others=others, more=more, clean_stop=False, **environment
        ) as pair:
            for model in PAIR:
                pair.play(model, *rules())
            yield pair.stack, {"text": PAIR[0], "seeing": PAIR[1], "embedding": "embedder"}


def _show(result: ChaosResult, took: float) -> None:
    _say(f"{result.requests} requests in {took:.0f} s: {dict(result.ends.most_common())}")
    _say(f"Wrong answers: {len(result.wrong)}. Hangs: {result.hangs}.")
    _say("| done | times | pauses | seconds without an answer | longest |\n|---|---:|---:|---:|---:|")
    for deed, times in sorted(result.deeds.items()):
        gaps = result.unavailable.get(deed, [])
        _say(f"| {deed} | {times} | {len(gaps)} | {sum(gaps):.0f} | {max(gaps, default=0.0):.0f} |")
    for wrong in result.wrong[:20]:
        _say(f"WRONG {wrong}")


def _supervise_until(stack: Stack, condition: Callable[[], bool]) -> None:
    """Restart what dies until the condition holds; raises TimeoutError if it does not come to hold."""
    end = time.monotonic() + RECOVERY_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {RECOVERY_S:g} s: {busy(read_gauges(stack))}")
        stack.restart_dead()
        time.sleep(0.1)


def _serves(stack: Stack, models: Mapping[str, str]) -> bool:
    """Whether every model answers. models: by what they do."""
    ping: dict[str, Any] = {"messages": [{"role": "user", "content": "ping"}]}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"model": one, "input": "ping"})
        if kind == "embedding"
        else ("/v1/chat/completions", {"model": one, **ping})
        for kind, one in models.items()
    ]
    try:
        return all(httpx.post(stack.url + path, json=body, timeout=30).is_success for path, body in asked)
    except httpx.HTTPError:
        return False


def _sampled(stack: Stack, what: str, count: int, warmup: int, load: Callable[[int, int], None]) -> float:
    """Print the memory after a warm-up, at intervals of `count` requests, and at rest; returns the seconds they took.

    load: sends a number of requests after as many before. Raises TimeoutError if requests are left at the end.
    """
    load(0, warmup)
    wait_at_rest(stack, REST_S)
    _memory_header(stack, what)
    _memory_row(stack, 0)
    begun, step = time.monotonic(), max(1, count // SAMPLES)
    for done in range(0, count - step + 1, step):
        load(warmup + done, step)
        _memory_row(stack, done + step)
    took = time.monotonic() - begun
    wait_at_rest(stack, REST_S)
    _memory_row(stack, "at rest")
    gauges = read_gauges(stack)
    _say("\nGauges: " + ", ".join(f"{name} {gauges[name]:g}" for name in AT_REST))
    return took


def overload(seconds: float) -> None:
    """Load a slow engine with 1 and 10 times what it can serve, with several limits."""
    _say("| limits | load | requests/s | TTFT p50, p99 s | latency p50, p99 s | refused | refusal p50, p99 ms |")
    _say("|---|---:|---:|---:|---:|---:|---:|")
    for name, limits in LIMITS.items():
        settings = {f"TRITON_CHAT_{key.upper()}": str(value) for key, value in limits.items()}
        with _stack("scripted", "--slots", str(SLOTS), **settings) as stack:
            for load in (1, 10):
                run = closed_loop(stack.url, stack.model_names[0], TOKENS, SLOTS * load, seconds)
                outcome = asyncio.run(run)
                if outcome.others:
                    raise RuntimeError(f"unexpected answers: {outcome.others[:10]}")
                _say(f"| {name} | {load}x | {_row(outcome)} |")


def stalls(engine: str, names: Sequence[str], stops: Sequence[float]) -> None:
    """Stop each process for each of these times under load; raises TimeoutError if something hangs."""
    _say(HEADER)
    _say(f"|{'---|' * (HEADER.count('|') - 1)}")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stacks:
        hurry: Path | None = None
        if engine == "scripted":
            hurry = Path(folder) / "hurry"
            tokenizer = TOKENIZERS / "qwen3"
            stacked = scripted_stack("qwen3", tokenizer, Path(folder) / "stack", clean_stop=False)
            scripted = stacks.enter_context(stacked)
            scripted.play(*stall_rules(hurry))
            stack = scripted.stack
        else:
            stack = stacks.enter_context(_stack(engine))
        for row in measure_stops(stack, hurry, names or (SCRIPTED if hurry else REAL), stops):
            _say(row)


def _row(outcome: Outcome) -> str:
    def both(values: Sequence[float], scale: float, digits: int) -> str:
        return ", ".join(f"{percentile(values, percent) * scale:.{digits}f}" for percent in (50, 99))

    refusal = both(outcome.refusal, 1000, 0) if outcome.refusal else ""
    return (
        f"{len(outcome.latency) / outcome.took:.1f} | {both(outcome.ttft, 1, 2)} | {both(outcome.latency, 1, 2)} | "
        f"{len(outcome.refusal)} | {refusal}"
    )


@contextmanager
def _stack(engine: str, *more: str, rule: Mapping[str, Any] = ON_AND_ON, **settings: str) -> Iterator[Stack]:
    settings = {"TRITON_CHAT_IMAGE_PRIVATE_HOSTS": "true", "TRITON_CHAT_IMAGE_TIMEOUT": "60"} | settings
    with tempfile.TemporaryDirectory() as folder:
        if engine == "default":
            arguments = ["smollm2", *FREE_PORTS, "--log-dir", folder]
            with Stack(arguments, environment=os.environ | settings) as stack:
                yield stack
            return
        tokenizer = TOKENIZERS / "qwen3"
        with scripted_stack("qwen3", tokenizer, Path(folder), more=more, **settings) as scripted:
            scripted.play(rule)
            yield scripted.stack


def _memory_header(stack: Stack, what: str) -> None:
    _say(f"| {what} | {' | '.join(memory(stack))} |")
    _say(f"|---{'|---:' * len(memory(stack))}|")


def _memory_row(stack: Stack, label: object) -> None:
    _say(f"| {label} | {' | '.join(f'{size:.0f}' for size in memory(stack).values())} |")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    aborts = commands.add_parser("aborts", help="clients that disconnect; memory and gauges afterwards")
    aborts.add_argument("--engine", choices=("scripted", "default"), default="scripted")
    aborts.add_argument("--count", type=int, default=10_000)
    aborts.add_argument("--concurrency", type=int, default=64)
    aborts.add_argument("--seed", type=int, default=0)
    attacks = commands.add_parser("attack", help="made-up requests to every endpoint and to Triton's models")
    attacks.add_argument("--requests", type=int, default=100_000)
    attacks.add_argument("--triton-requests", type=int, default=10_000)
    attacks.add_argument("--seed", type=int, default=0)
    attacks.add_argument("--processes", type=int, default=2, help="that send requests (default: %(default)s)")
    disturbed = commands.add_parser("chaos", help="random kills and stops under a load whose answers are known")
    disturbed.add_argument("--minutes", type=float, default=60.0)
    disturbed.add_argument("--seed", default="0")
    disturbed.add_argument("--clients", type=int, default=12)
    disturbed.add_argument("--several", action="store_true", help="three models, of which one makes embeddings")
    seen = commands.add_parser("pictures", help="thousands of different pictures; memory and gauges afterwards")
    seen.add_argument("--family", choices=TINY_VLMS, default="qwen2_5_vl")
    seen.add_argument("--count", type=int, default=10_000)
    seen.add_argument("--concurrency", type=int, default=16)
    stopped = commands.add_parser("stalls", help="processes that stand still for a while; what clients see")
    stopped.add_argument("--engine", choices=("scripted", "default"), default="scripted")
    stopped.add_argument(
        "--processes", nargs="*", default=(), help=f"of {', '.join((*SCRIPTED, *REAL))}; several at once: vit+watchdog"
    )
    stopped.add_argument("--seconds", nargs="*", type=float, default=(1.5, 3.0, 10.0, 30.0))
    commands.add_parser("upgrades", help="two stacks behind HAProxy, replaced one after the other; no request is lost")
    load = commands.add_parser("overload", help="latency at 1 and 10 times what the engine can serve")
    load.add_argument("--seconds", type=float, default=30.0)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
