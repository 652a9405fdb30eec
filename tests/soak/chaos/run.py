# SPDX-License-Identifier: Apache-2.0
"""Run load and disturbances together, and look at what is left afterwards."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence

import psutil

from scripts.launcher import Stack
from tests.soak.chaos.availability import PERIOD_S
from tests.soak.chaos.clients import HANG_S, Clients
from tests.soak.chaos.disturbances import Disturber


def run_chaos(
    stack: Stack,
    clients: Clients,
    disturber: Disturber,
    seconds: float,
    *,
    concurrency: int = 16,
    pause_s: tuple[float, float] = (1.0, 8.0),
    seed: str = "0",
) -> None:
    """Run the load and the deeds for so long, and restart what dies; this is the launcher's thread.

    pause_s: the least and the most between two disturbances. All but a sixth of them wait until every model serves again: on a
    machine where a start takes a minute, nothing would ever serve otherwise.
    """
    end = time.monotonic() + seconds
    draw = random.Random(seed)  # nosec B311 # no secret is drawn
    stopped = threading.Event()

    def done() -> bool:
        return time.monotonic() >= end or stopped.is_set()

    def disturb() -> None:
        while not done():
            stopped.wait(min(draw.uniform(*pause_s), max(0.0, end - time.monotonic())))
            if not done():
                disturber.disturb()
                begun = time.monotonic()
                patient = draw.random() > 1 / 6
                while (
                    patient
                    and not done()
                    and not clients.availability.serves(begun)
                    and time.monotonic() < begun + HANG_S
                ):
                    stopped.wait(PERIOD_S)

    failures: list[BaseException] = []

    def load() -> None:
        try:
            asyncio.run(clients.run(concurrency, done, lambda: disturber.last))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load), threading.Thread(target=disturb)]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            stack.restart_dead()
            time.sleep(0.05)
    finally:
        stopped.set()
        for thread in threads:
            thread.join(HANG_S)
    if failures:
        raise failures[0]


def living(stack: Stack) -> Iterator[psutil.Process]:
    """All processes of a stack."""
    for part in stack.parts:
        try:
            parent = psutil.Process(part.pid)
            yield from (parent, *parent.children(recursive=True))
        except psutil.Error:
            continue


def left_over(seen: Sequence[psutil.Process]) -> list[str]:
    """Those of these processes that still run, though not as zombies."""
    names = []
    for one in seen:
        try:
            if one.is_running() and one.status() != psutil.STATUS_ZOMBIE:
                names.append(f"{one.pid} {' '.join(one.cmdline())[:100]}")
        except psutil.Error:
            continue
    return names
