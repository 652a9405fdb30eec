# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself: start, warm up, measure, in alternating rounds.

The contenders share the machine, so they never run at once: each round starts one, measures it at every concurrency
and stops it. The taps of this stack are measured in one start of it. Every other round goes the other way round.
"""

import argparse
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.bench import machine
from scripts.bench.errors import Refused
from scripts.bench.measurement import measured, tell
from scripts.bench.prompts import PromptMaker
from scripts.bench.report import save
from scripts.bench.scripted import scripted_flags, scripted_repository
from scripts.bench.targets import CONTENDERS, NAME, Started, engine_options, groups, started
from scripts.bench.workloads import Workload, check, chosen, streams
from scripts.launcher import FREE_PORTS, Stack
from scripts.launcher.model import PREPARED
from scripts.launcher.options import DEFAULT_MODEL, DEMO_MODEL

# Requests that a frontend lets in are no limit of the benchmark's.
_IN_FLIGHT = 512


@dataclass(slots=True)
class Bench:
    """One run of the command. results: one entry for each measurement, in the order they were made."""

    options: argparse.Namespace
    workload: Workload
    maker: PromptMaker
    flags: list[str]
    model: str
    engine: dict[str, Any]
    results: list[dict[str, Any]] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    tritonserver: str | None = None

    def stack(self) -> Stack:
        """A stack that is not started yet."""
        return Stack(self.flags)

    def round(self, number: int, advance: Any) -> None:
        """Start and measure each contender once."""
        order = groups(self.options.contenders)
        for names in order if number % 2 == 0 else order[::-1]:
            options = self.options
            with started(names, self.stack(), self.model, options.vllm_serve_flags, options.out) as running:
                self._note(number, names, running)
                for count in options.streams:
                    for name in names:
                        advance(f"round {number + 1}, {name}, {count} streams")
                        self._measure(number, name, count, running)

    def _note(self, number: int, names: tuple[str, ...], running: Started) -> None:
        self.commands[" ".join(names)] = running.commands
        self.starts.append({"round": number + 1, "contenders": names, "seconds": round(running.started_s, 2)})
        self.tritonserver = running.tritonserver or self.tritonserver

    def _measure(self, number: int, name: str, count: int, running: Started) -> None:
        options = self.options
        # The order in the table of all contenders, so that a tap never finds another's prompts in the prefix cache.
        salt = CONTENDERS.index(name) * 100_000 + count
        load = streams(
            self.workload,
            self.maker,
            count,
            options.requests_per_stream,
            options.warmup,
            number=number,
            salt=salt,
        )
        about = {"round": number + 1, "contender": name, "streams": count}
        entry = about | measured(running, name, load, options.client_processes)
        self.results.append(entry)
        _tell(entry)

    def about(self, begun: float) -> dict[str, Any]:
        """Everything that is needed to read the figures."""
        options = self.options
        return {
            "command": options.line,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.monotonic() - begun, 1),
            "model": Path(self.model).name,
            "workload": {
                "name": options.workload,
                "about": self.workload.about,
                "lengths": self.workload.lengths,
                "turns": self.workload.turns,
                "pictures": self.workload.pictures,
            },
            "temperature": options.temperature,
            "scripted_rate": options.scripted,
            "requests_per_stream": options.requests_per_stream,
            "warmup": options.warmup,
            "rounds": options.rounds,
            "client_processes": options.client_processes,
            "engine_options": self.engine,
            "stack": shlex.join(["triton-chat", "serve", *self.flags]),
            "commands": self.commands,
            "starts": self.starts,
            "machine": machine.hardware(),
            "versions": machine.versions(self.tritonserver),
        }


def measure(options: argparse.Namespace) -> int:
    """Run it all and save what was measured, also where it was broken off; the exit status is 1 for failed requests.

    Raises Refused or LaunchError in words where something cannot be.
    """
    begun = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="triton_chat_bench_") as folder:
        try:
            bench = prepare(options, Path(folder))
        except ValueError as error:
            raise Refused(str(error)) from error
        try:
            with progress() as bar:
                runs = options.rounds * len(options.contenders) * len(options.streams)
                task = bar.add_task("starting", total=runs)
                done = iter(range(runs))
                for number in range(options.rounds):
                    bench.round(number, lambda text: bar.update(task, description=text, completed=next(done)))
        finally:
            if bench.results:
                print(save(options.out, bench.about(begun), bench.results))
    return 1 if any(entry["failures"] for entry in bench.results) else 0


def prepare(options: argparse.Namespace, folder: Path) -> Bench:
    """Check everything that can be checked before anything is started; raises ValueError for what cannot be.

    folder: empty, for a scripted repository.
    """
    model = options.model or DEFAULT_MODEL
    workload = chosen(options.workload, options.prompt_tokens, options.output_tokens, options.temperature)
    flags = ["--model", model, "--served-model-name", NAME, *FREE_PORTS, "--log-dir", str(options.out / "logs")]
    if options.scripted:
        flags += scripted_flags(scripted_repository(folder), options.scripted)
    if not any(flag.startswith("--max-in-flight") for flag in options.serve_flags):
        flags.append(f"--max-in-flight={max(_IN_FLIGHT, *options.streams)}")
    flags += options.serve_flags
    stack = Stack(flags)
    if model == DEMO_MODEL and "vllm-serve" in options.contenders:
        raise ValueError(f"`vllm serve` cannot take {DEMO_MODEL}, which exists as parts only")
    whole = str(stack.model.checkpoint.path) if model in PREPARED else model
    tiles = stack.options.settings.get("TRITON_CHAT_MAX_TILES_PER_IMAGE")
    maker = PromptMaker(
        stack.model.checkpoint.path,
        int(stack.engine_environment["TRITON_CHAT_MAX_MODEL_LEN"]),
        styler=stack.options.styler,
        max_tiles_per_image=int(tiles) if tiles else None,
    )
    check(workload, maker)
    # Whatever else a request may be refused for is found here and not after the first start.
    streams(workload, maker, 1, 1, 1, number=0, salt=0)
    return Bench(options, workload, maker, flags, whole, engine_options(stack))


@contextmanager
def progress() -> Iterator[Progress]:
    """A bar over all runs on standard error; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def _tell(entry: dict[str, Any]) -> None:
    found = entry["figures"]
    shown = ", ".join(
        f"{name} {found[name]:.2f}" for name in ("tokens_per_s", "ttft_ms_p50", "itl_ms_p50") if name in found
    )
    tell(f"round {entry['round']} {entry['contender']} {entry['streams']} streams: {shown}", entry)
    if found["client_busy"] > 0.85:
        print(
            f"  a client process was at {found['client_busy']:.0%} of a core: give more --client-processes", flush=True
        )
