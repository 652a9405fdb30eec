# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak aborts [--engine scripted|default] [--count N]`, `... overload`, `... pictures [--count N]`,
`... limits`, `... stalls`, `... upgrades`, `... attack [--requests N] [--seed S]`, `... chaos [--minutes M] [--seed S]`.
"""

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from scripts.launcher import FREE_PORTS, Stack
from tests.soak.aborts import Aborter
from tests.soak.attack_command import RULE, SETTINGS, Attack, attack_stack
from tests.soak.chaos.command import chaos
from tests.soak.gauges import AT_REST, memory, read_gauges, shared_memory, wait_at_rest
from tests.soak.limits import ask_at_once, bodies, peaks, reset_peaks
from tests.soak.load import Outcome, closed_loop, percentile
from tests.soak.pictures import SIZES, allow_pixels, ask
from tests.soak.reports import TOKENIZERS, Read, memory_header, memory_row, say
from tests.soak.stalls import HEADER, REAL, SCRIPTED, measure_stops
from tests.soak.stalls import rules as stall_rules
from tests.soak.upgrades import upgrade
from tests.support.scripted import scripted_stack
from tests.support.tiny_vlms import TINY_VLMS, make_tiny_vlm

# Of a request: tokens of the longest prompt, pixels of the largest picture (`--image-max-pixels`), and pictures.
LIMIT_TOKENS, LIMIT_PIXELS, LIMIT_PICTURES = 2048, 64 * 2**20, 60
REST_S = 90.0  # within which everything must have stopped
KEPT_S = 15.0  # after which shared memory that is not used again has gone
SAMPLES = 10  # of memory during a run
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
        return attack(options)
    elif options.command == "chaos":
        return chaos(options.minutes, options.seed, options.clients, several=options.several, isolated=options.isolated)
    elif options.command == "limits":
        limits(options.family, options.clients)
    elif options.command == "pictures":
        pictures(options.family, options.count, options.concurrency)
    elif options.command == "stalls":
        stalls(options.engine, options.processes, options.seconds)
    elif options.command == "upgrades":
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(upgrade(TOKENIZERS / "qwen3", Path(folder), say))
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
        say(f"{count} aborts in {took:.0f} s. Ends: {dict(aborter.counts.most_common())}")


def pictures(family: str, count: int, concurrency: int) -> None:
    """Ask about thousands of pictures and print the memory at intervals; raises TimeoutError if requests are left.

    Most pictures are different ones, some equal to an earlier one, and some clients disconnect. family: one of
    tests/support/tiny_vlms.py, on its own processor and in the real engine.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_tiny_vlm(family, Path(folder) / family)
        allow_pixels(checkpoint, max(height * width for height, width in SIZES))
        # Small, so that the caches of pictures are full before the first row.
        flags = ["--max-model-len", "1024", "--mm-processor-cache-gb", "0.01", "--log-dir", f"{folder}/logs"]
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
        with Stack([str(checkpoint), *flags, *FREE_PORTS], environment=environment) as stack:
            ends = Counter[str]()

            def load(first: int, number: int) -> None:
                ends.update(asyncio.run(ask(stack.url, stack.model_names[0], first, number, concurrency)))

            def read(stack: Stack) -> Mapping[str, float]:
                return memory(stack) | shared_memory(stack)

            took = _sampled(stack, "pictures", count, min(2000, count), load, read, KEPT_S)
            say(f"{count} pictures in {took:.0f} s. Ends with those before: {dict(ends)}")


def limits(family: str, clients: int) -> None:
    """Print the most memory of each process while so many clients are at the limits of prompts and pictures."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = make_tiny_vlm(family, Path(folder) / family)
        flags = ["--max-model-len", str(LIMIT_TOKENS), "--log-dir", f"{folder}/logs"]
        flags += ["--limit-mm-per-prompt", '{"image": 100}', "--request-timeout", "600"]
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
        with Stack([str(checkpoint), *flags, *FREE_PORTS], environment=environment) as stack:
            say(f"| {clients} clients | answers | {' | '.join(peaks(stack))} |")
            say(f"|---|---{'|---:' * len(peaks(stack))}|")
            say(f"| at rest | | {' | '.join(f'{size:.0f}' for size in peaks(stack).values())} |")
            for what, body in bodies(LIMIT_TOKENS - 100, LIMIT_PIXELS, LIMIT_PICTURES).items():
                reset_peaks(stack)
                answers = asyncio.run(ask_at_once(stack.url, stack.model_names[0], body, clients))
                wait_at_rest(stack, REST_S)
                row = " | ".join(f"{size:.0f}" for size in peaks(stack).values())
                say(f"| {what} | {dict(answers)} | {row} |")


def attack(options: argparse.Namespace) -> int:
    """Send made-up requests to a scripted stack; returns 1 if a fault was found."""
    more = ["--frontends", str(options.frontends), "--preprocessing-instances", str(options.preprocessing_instances)]
    settings = {f"TRITON_CHAT_{name}": value for name, value in SETTINGS.items()}
    plan = Attack(
        options.requests,
        options.triton_requests,
        options.processes,
        options.triton_processes,
        str(options.seed),
        minutes=options.minutes,
        leaving=options.leaving,
    )
    # Clients that leave may leave requests behind in Triton 2.51.
    clean_stop = not options.leaving
    with _stack("scripted", *more, rule=RULE, clean_stop=clean_stop, **settings) as stack:
        return attack_stack(stack, plan, REST_S)


def _sampled(
    stack: Stack,
    what: str,
    count: int,
    warmup: int,
    load: Callable[[int, int], None],
    read: Read = memory,
    settle_s: float = 0.0,
) -> float:
    """Print the memory after a warm-up, at intervals of `count` requests, and at rest; returns the seconds they took.

    load: sends a number of requests after as many before. Raises TimeoutError if requests are left at the end.
    """
    load(0, warmup)
    wait_at_rest(stack, REST_S)
    memory_header(stack, what, read)
    memory_row(stack, 0, read)
    begun, step = time.monotonic(), max(1, count // SAMPLES)
    for done in range(0, count - step + 1, step):
        load(warmup + done, step)
        memory_row(stack, done + step, read)
    took = time.monotonic() - begun
    wait_at_rest(stack, REST_S)
    time.sleep(settle_s)
    memory_row(stack, "at rest", read)
    gauges = read_gauges(stack)
    say("\nGauges: " + ", ".join(f"{name} {gauges[name]:g}" for name in AT_REST))
    return took


def overload(seconds: float) -> None:
    """Load a slow engine with 1 and 10 times what it can serve, with several limits."""
    say("| limits | load | requests/s | TTFT p50, p99 s | latency p50, p99 s | refused | refusal p50, p99 ms |")
    say("|---|---:|---:|---:|---:|---:|---:|")
    for name, limits in LIMITS.items():
        settings = {f"TRITON_CHAT_{key.upper()}": str(value) for key, value in limits.items()}
        with _stack("scripted", "--slots", str(SLOTS), **settings) as stack:
            for load in (1, 10):
                run = closed_loop(stack.url, stack.model_names[0], TOKENS, SLOTS * load, seconds)
                outcome = asyncio.run(run)
                if outcome.others:
                    raise RuntimeError(f"unexpected answers: {outcome.others[:10]}")
                say(f"| {name} | {load}x | {_row(outcome)} |")


def stalls(engine: str, names: Sequence[str], stops: Sequence[float]) -> None:
    """Stop each process for each of these times under load; raises TimeoutError if something hangs."""
    say(HEADER)
    say(f"|{'---|' * (HEADER.count('|') - 1)}")
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
            say(row)


def _row(outcome: Outcome) -> str:
    def both(values: Sequence[float], scale: float, digits: int) -> str:
        return ", ".join(f"{percentile(values, percent) * scale:.{digits}f}" for percent in (50, 99))

    refusal = both(outcome.refusal, 1000, 0) if outcome.refusal else ""
    return (
        f"{len(outcome.latency) / outcome.took:.1f} | {both(outcome.ttft, 1, 2)} | {both(outcome.latency, 1, 2)} | "
        f"{len(outcome.refusal)} | {refusal}"
    )


@contextmanager
def _stack(
    engine: str, *more: str, rule: Mapping[str, Any] = ON_AND_ON, clean_stop: bool = True, **settings: str
) -> Iterator[Stack]:
    settings = {"TRITON_CHAT_IMAGE_PRIVATE_HOSTS": "true", "TRITON_CHAT_IMAGE_TIMEOUT": "60"} | settings
    with tempfile.TemporaryDirectory() as folder:
        if engine == "default":
            arguments = ["smollm2", *FREE_PORTS, "--log-dir", folder]
            with Stack(arguments, environment=os.environ | settings) as stack:
                yield stack
            return
        tokenizer = TOKENIZERS / "qwen3"
        with scripted_stack("qwen3", tokenizer, Path(folder), more=more, clean_stop=clean_stop, **settings) as scripted:
            scripted.play(rule)
            yield scripted.stack


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
    attacks.add_argument(
        "--processes", type=int, default=2, help="that send requests to the frontends (default: %(default)s)"
    )
    attacks.add_argument("--triton-processes", type=int, default=1, help="that send requests to Triton")
    attacks.add_argument(
        "--leaving", type=float, default=0.0, help="share of Triton's clients that leave before the end of their answer"
    )
    attacks.add_argument("--frontends", type=int, default=1)
    attacks.add_argument("--preprocessing-instances", type=int, default=2)
    attacks.add_argument("--minutes", type=float, default=math.inf, help="after which no more requests are sent")
    disturbed = commands.add_parser("chaos", help="kills, stops and shortages under a load whose answers are known")
    disturbed.add_argument("--minutes", type=float, default=60.0)
    disturbed.add_argument("--seed", default="0")
    disturbed.add_argument("--clients", type=int, default=12)
    disturbed.add_argument("--several", action="store_true", help="three models, of which one makes embeddings")
    disturbed.add_argument(
        "--isolated",
        action="store_true",
        help="also take memory, shared memory and the disk of the logs away; under tests/soak/isolated.sh only",
    )
    large = commands.add_parser("limits", help="many clients at the limits of prompts and pictures; peaks of memory")
    large.add_argument("--family", choices=TINY_VLMS, default="qwen2_5_vl")
    large.add_argument("--clients", type=int, default=32)
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
