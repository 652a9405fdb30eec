# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak attack`: made-up requests from several processes to a scripted stack, and the report."""

import asyncio
import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from frontend.endpoints.openapi import document
from scripts.launcher import Stack
from scripts.launcher.child_process import ChildProcess
from tests.soak.attack import Attacker
from tests.soak.gauges import AT_REST, cpu_seconds, memory, read_gauges, wait_at_rest
from tests.soak.made_requests import RequestMaker
from tests.soak.memory_trend import MemoryTrend
from tests.soak.reports import say
from tests.soak.tally import Tally
from tests.soak.triton_attack import attack_triton

# Not `postprocessing`: its inputs are what an engine says, and it waits for the rest of each answer.
_MODELS = ("ensemble", "preprocessing", "vit", "tensorrt_llm")
_KEY = "the-admin-key"
SETTINGS = {"ADMIN_KEY": _KEY, "TRUST_REQUEST_CHAT_TEMPLATE": "true", "MAX_IN_FLIGHT": "4096"}
RULE = {"text": "<think>Hm.</think>Fine, thanks."}


@dataclass(frozen=True, slots=True)
class Attack:
    """How to attack: so many requests of each kind from so many processes, each with so many at once.

    minutes: after which each process sends no more. sample_s: seconds between two samples of the memory. leaving: the
    share of Triton's clients that do not wait for the end of their answer.
    """

    requests: int
    triton_requests: int
    processes: int
    triton_processes: int
    seed: str
    concurrency: int = 16
    minutes: float = math.inf
    sample_s: float = 5.0
    leaving: float = 0.0


class Ends:
    """Says at once which part of a stack has ended, with its status and the end of its log, which goes with the stack."""

    def __init__(self, parts: Sequence[ChildProcess]) -> None:
        self._parts = parts
        self.said: set[str] = set()

    def look(self) -> None:
        """Say what has ended since the last look."""
        for part in self._parts:
            status = part.exit_status()
            if status is not None and part.name not in self.said:
                self.said.add(part.name)
                say("\n".join([f"{part.name} ended with status {status}. The end of its log:", *part.lines()]))


def attack_stack(stack: Stack, attack: Attack, rest_s: float) -> int:
    """Send made-up requests to the frontends and to Triton at once, and print what came of them.

    Returns 1 if a fault was found or a process of the stack has ended. Raises TimeoutError if requests are left at the end.
    """
    trend, begun, spent, ends = MemoryTrend(), time.monotonic(), cpu_seconds(stack), Ends(stack.parts)

    def sample() -> Mapping[str, float]:
        ends.look()
        return memory(stack)

    with trend.sampled(sample, attack.sample_s):
        http, triton = _send(stack, attack)
    ends.look()
    took = time.monotonic() - begun
    used = cpu_seconds(stack)
    rate = (http.requests + triton.requests) / took
    say(
        f"{http.requests} requests to the frontend and {triton.requests} to Triton in {took:.0f} s: {rate:.0f} per second"
    )
    _say_answers(http, triton)
    say(f"\nMemory in {len(trend.sizes)} samples:\n\n" + "\n".join(trend.table()))
    cores = ", ".join(f"{name} {(used[name] - spent.get(name, 0.0)) / took:.2f}" for name in used)
    say(f"\nCores in use: {cores}")
    if ends.said:
        return 1
    wait_at_rest(stack, rest_s)
    say("At rest: " + ", ".join(f"{name} {size:.0f}" for name, size in memory(stack).items()))
    gauges = read_gauges(stack)
    say("Gauges: " + ", ".join(f"{name} {gauges[name]:g}" for name in AT_REST))
    return 1 if http.findings or triton.findings else 0


def _say_answers(http: Tally, triton: Tally) -> None:
    for what, tally in (("endpoint", http), ("model", triton)):
        if tally.requests:
            say("\n" + "\n".join(tally.table(what)))
    say(f"\nErrors in streams: {dict(http.errors.most_common())}")
    findings = {**http.findings, **triton.findings}
    say(f"Faults: {len(findings)}. Hangs: {http.statuses['hang'] + triton.statuses['hang']}.")
    for fault, request in findings.items():
        say(f"FAULT {fault}\n{request}")


def _send(stack: Stack, attack: Attack) -> tuple[Tally, Tally]:
    """Send all requests from processes of their own; returns what came of those to the frontend and to Triton."""
    http, triton = Tally(), Tally()
    with _processes(attack.processes + attack.triton_processes) as submit:
        running: list[tuple[Tally, Future[Tally]]] = []
        for index, count in enumerate(shares(attack.requests, attack.processes)):
            seed = f"{attack.seed}/{index}"
            sent = submit(_share, stack.url, stack.model_names, count, seed, attack.concurrency, 60 * attack.minutes)
            running.append((http, sent))
        for index, count in enumerate(shares(attack.triton_requests, attack.triton_processes)):
            seed = f"{attack.seed}/triton/{index}"
            limits = (attack.concurrency, 60 * attack.minutes, attack.leaving)
            sent = submit(_triton_share, stack.grpc_url, count, seed, *limits)
            running.append((triton, sent))
        for tally, future in running:
            tally.add(future.result())
    return http, triton


@contextmanager
def _processes(number: int) -> Iterator[Callable[..., Future[Tally]]]:
    # Not forked: this process has threads, of gRPC among others.
    with ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool.submit


def shares(count: int, processes: int) -> list[int]:
    """Divide a number of requests among processes."""
    return [count // processes + (one < count % processes) for one in range(processes)]


def _share(url: str, models: Sequence[str], count: int, seed: str, concurrency: int, seconds: float) -> Tally:
    maker = RequestMaker(document(), models, seed)
    return asyncio.run(Attacker(url, maker, _KEY).run(count, concurrency, seconds))


def _triton_share(address: str, count: int, seed: str, concurrency: int, seconds: float, leaving: float) -> Tally:
    sending = attack_triton(address, _MODELS, count, seed, concurrency=concurrency, seconds=seconds, leaving=leaving)
    return asyncio.run(sending)
