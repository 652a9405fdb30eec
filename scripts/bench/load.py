# SPDX-License-Identifier: Apache-2.0
"""Streams over several client processes, so that the client is not the bottleneck."""

import asyncio
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection, wait
from typing import Any

from scripts.bench.http_client import HttpClient
from scripts.bench.questions import Answer, Question, Stream
from scripts.bench.triton_client import CLIENTS, TritonClient
from scripts.shared.parent_death import signal_when_parent_ends

# From the word to the client processes to the first request, so that all of them have it by then.
_LEAD_S = 0.05


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address for requests. kind: "http" (address is a URL), "ensemble" or "tensorrt_llm" (host:port of gRPC)."""

    kind: str
    address: str
    model: str

    def client(self) -> HttpClient | TritonClient:
        """Create a client for one process."""
        return HttpClient(self.address, self.model) if self.kind == "http" else CLIENTS[self.kind](self.address)


@dataclass(slots=True)
class Outcome:
    """The answers of a load. busy: the largest part of a core that a client process used; near 1 the client was the
    bottleneck. beside: the answers of streams that ran beside those that were measured.
    """

    answers: list[Answer] = field(default_factory=list)
    busy: float = 0.0
    beside: list[Answer] = field(default_factory=list)


def run(endpoint: Endpoint, streams: Sequence[Stream], processes: int, measuring: Callable[[], None]) -> Outcome:
    """Warm up, call `measuring`, run the streams. Raises RuntimeError if a client process dies.

    No client process is left in any case.
    """
    # Each process has streams that end, as those beside them go on until then.
    streams = sorted(streams, key=lambda stream: stream.beside)
    count = min(processes, sum(not stream.beside for stream in streams))
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    try:
        for index in range(count):
            ours, theirs = context.Pipe()
            share = list(streams[index::count])
            worker = context.Process(target=_work, args=(theirs, endpoint, share), daemon=True)
            with _safe_path():
                worker.start()
            theirs.close()
            pipes.append(ours)
            workers.append(worker)
        _receive(pipes)
        measuring()
        begin = time.monotonic() + _LEAD_S
        for pipe in pipes:
            pipe.send(begin)
        outcome = Outcome()
        for answers, beside, busy in _receive(pipes):
            outcome.answers += answers
            outcome.beside += beside
            outcome.busy = max(outcome.busy, busy)
        return outcome
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let Python processes that are started meanwhile not search the current directory for modules."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _receive(pipes: Sequence[Connection]) -> list[Any]:
    """Receive one message from each."""
    received = []
    waiting = list(pipes)
    while waiting:
        for pipe in wait(waiting):
            assert isinstance(pipe, Connection)  # nosec B101 # narrows a type, checks no input
            try:
                received.append(pipe.recv())
            except EOFError:
                raise RuntimeError("a client process died; its traceback is above") from None
            waiting.remove(pipe)
    return received


def _work(pipe: Connection, endpoint: Endpoint, streams: Sequence[Stream]) -> None:
    # The parent handles Ctrl-C and ends its workers; if it is killed, the kernel ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal_when_parent_ends(signal.SIGKILL)
    asyncio.run(_drive(pipe, endpoint, streams))


async def _drive(pipe: Connection, endpoint: Endpoint, streams: Sequence[Stream]) -> None:
    async with endpoint.client() as client:
        await _ask_all(client, _prepared(client, [stream.warmup for stream in streams]))
        measured = [stream for stream in streams if not stream.beside]
        prepared = _prepared(client, [stream.measured for stream in measured])
        others = _prepared(client, [stream.measured for stream in streams if stream.beside])
        gc.collect()
        gc.freeze()
        pipe.send("warm")
        begin = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        wall, cpu = time.monotonic(), time.process_time()
        beside: list[Answer] = []
        running = [asyncio.create_task(_go_on(client, stream, beside)) for stream in others]
        answers = await _ask_all(client, prepared, [begin + stream.after for stream in measured])
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        busy = (time.process_time() - cpu) / max(time.monotonic() - wall, 1e-9)
    pipe.send((answers, beside, busy))


def _prepared(
    client: HttpClient | TritonClient, streams: Sequence[Sequence[Question]]
) -> list[list[tuple[Question, Any]]]:
    return [[(question, client.prepare(question)) for question in stream] for stream in streams]


async def _go_on(
    client: HttpClient | TritonClient, stream: Sequence[tuple[Question, Any]], answers: list[Answer]
) -> None:
    for question, prepared in cycle(stream):
        answers.append(await client.ask(question, prepared))


async def _ask_all(
    client: HttpClient | TritonClient,
    streams: Sequence[Sequence[tuple[Question, Any]]],
    begins: Sequence[float] = (),
) -> list[Answer]:
    """Ask the questions of all streams. begins: times of the monotonic clock at which the streams begin."""

    async def one(stream: Sequence[tuple[Question, Any]], begin: float) -> list[Answer]:
        if (rest := begin - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        return [await client.ask(question, prepared) for question, prepared in stream]

    begins = begins or [0.0] * len(streams)
    parts = await asyncio.gather(*[one(*given) for given in zip(streams, begins, strict=True)])
    return [answer for part in parts for answer in part]
