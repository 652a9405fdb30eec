# SPDX-License-Identifier: Apache-2.0
"""The benchmark itself: start, warm up and measure each target in alternating rounds.

Targets share the machine, so they are never measured at the same time. By default a round starts one, measures it with
every load and stops it; side by side all are up and are measured in turn with each load. The endpoints of this stack
are measured in one start of it. Every second round is in reverse order.
"""

import argparse
import math
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.bench import machine, waterfall
from scripts.bench.arrivals import Arrivals
from scripts.bench.errors import BenchError
from scripts.bench.measurement import measure_load, print_measurement
from scripts.bench.peers import check_rust
from scripts.bench.prompts import PromptMaker
from scripts.bench.report import save
from scripts.bench.side_by_side import Share, share
from scripts.bench.target_names import VLLM_RUST, is_peer
from scripts.bench.targets import NAME, RunningTarget, Starter, engine_options, groups, token_rate_flags, vllm_flags
from scripts.bench.workloads import WORKLOADS, Workload, beside, check, chosen, streams
from scripts.launcher import FREE_PORTS, Stack
from scripts.launcher.model import PREPARED
from scripts.launcher.options import DEFAULT_MODEL, DEMO_MODEL

# The least that frontends admit: admission must not limit the benchmark.
_IN_FLIGHT = 512
# Parameters of the model `preprocessing` -> the variables that its config reads.
_PREPROCESSING = {
    "vision": "TRITON_CHAT_VISION",
    "engine_options": "TRITON_CHAT_ENGINE_OPTIONS",
    "max_model_len": "TRITON_CHAT_MAX_MODEL_LEN",
}


@dataclass(slots=True)
class Bench:
    """One run of the command.

    vllm: whether it is this stack's engine. share: what each target gets if all are up at once. results: the
    measurements in the order they were made. first_pass: those of the loads that all targets get once before, in a
    round 0, if all are up at once.
    """

    options: argparse.Namespace
    workload: Workload
    maker: PromptMaker
    flags: list[str]
    model: str
    engine: dict[str, Any]
    vllm: bool = True
    share: Share = field(default_factory=Share)
    results: list[dict[str, Any]] = field(default_factory=list)
    first_pass: list[dict[str, Any]] = field(default_factory=list)
    commands: dict[str, list[str]] = field(default_factory=dict)
    starts: list[dict[str, Any]] = field(default_factory=list)
    tritonserver: str | None = None
    waterfall: dict[str, Any] | None = None
    begun: float = field(default_factory=time.monotonic)

    def stack(self, flags: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Stack:
        """Create a stack without starting it."""
        return Stack([*self.flags, *flags], environment={**environment, **self.share.environment})

    def run(self, advance: Callable[[str], None]) -> None:
        """Start and measure all targets in all rounds. advance: called before each measurement.

        What was measured is saved before targets are stopped, which may take longer than who interrupts this waits.
        """
        options = self.options
        starter = Starter(self.stack, self.model, options.vllm_serve_flags, options.out)
        order = groups(options.targets)
        if options.side_by_side:
            with starter.start_all(order, at_once=self.share.at_once) as running, self._saving():
                for names in order:
                    self._note(1, names, running[names[0]])
                # During the first loads engines on a GPU compile kernels, which would be among the figures.
                for number in range(-1, options.rounds):
                    for load in options.loads:
                        self._measure_all(number, load, options.targets, running, advance)
            return
        for number in range(options.rounds):
            for names in order[:: _step(number)]:
                with starter.start(names) as one, self._saving():
                    self._note(number + 1, names, one)
                    for load in options.loads:
                        self._measure_all(number, load, names, dict.fromkeys(names, one), advance)

    @contextmanager
    def _saving(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.save()

    def save(self) -> str:
        """Save what has been measured; returns the text for the terminal."""
        if not self.results:
            return ""
        return save(self.options.out, self.about(), self.results, self.first_pass, self.waterfall)

    def _measure_all(
        self,
        number: int,
        load: Arrivals,
        names: Sequence[str],
        running: Mapping[str, RunningTarget],
        advance: Callable[[str], None],
    ) -> None:
        """Measure one load on each of the targets, in reverse order in every second round.

        number: of the round, from 0; -1 for the first pass.
        """
        for name in names[:: _step(max(0, number))]:
            advance(f"round {number + 1}, {name}, {load.label()}")
            self._measure(number, name, load, running[name])

    def _note(self, number: int, names: tuple[str, ...], running: RunningTarget) -> None:
        self.commands[" ".join(names)] = running.commands
        self.starts.append({"round": number, "contenders": names, "seconds": round(running.started_s, 2)})
        self.tritonserver = running.tritonserver or self.tritonserver

    def _measure(self, number: int, name: str, load: Arrivals, running: RunningTarget) -> None:
        options = self.options
        # Different for each target and load, so that none finds the prompts of another in the prefix cache.
        salt = options.targets.index(name) * len(options.loads) + options.loads.index(load)
        requests = 1
        if load.rate is None:
            requests = max(options.requests_per_stream, -(-options.min_requests // load.count))
        asked = streams(self.workload, self.maker, load.count, requests, options.warmup, number=number, salt=salt)
        asked = load.timed(asked, number)
        asked += beside(self.workload, self.maker, options.beside_pictures, number=number, salt=salt)
        about = {"round": number + 1, "contender": name, **load.about}
        measurement = about | measure_load(running, name, asked, options.client_processes)
        (self.first_pass if number < 0 else self.results).append(measurement)
        _print(measurement, load)

    def trace(self) -> None:
        """Measure the waterfall of this stack."""
        options, load = self.options, Arrivals(self.options.waterfall, math.inf)
        # Prompts that no other load has.
        salt = len(options.targets) * len(options.loads)
        self.waterfall = waterfall.measure(
            self.stack,
            lambda number: streams(self.workload, self.maker, load.count, 1, options.warmup, number=number, salt=salt),
            NAME,
            bursts=options.rounds,
            processes=options.client_processes,
            vllm=self.vllm,
        )

    def about(self) -> dict[str, Any]:
        """Options, machine and versions: the context of the figures."""
        options = self.options
        return {
            "command": options.line,
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.monotonic() - self.begun, 1),
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
            "min_requests": options.min_requests,
            "warmup": options.warmup,
            "rounds": options.rounds,
            "side_by_side": options.side_by_side,
            "beside_pictures": options.beside_pictures,
            "waterfall": options.waterfall,
            "client_processes": options.client_processes,
            "engine_options": self.engine,
            "stack": shlex.join(["triton-chat", "serve", *self.flags]),
            "commands": self.commands,
            "starts": self.starts,
            "machine": machine.hardware(),
            "versions": machine.versions(self.tritonserver),
        }


def measure(options: argparse.Namespace) -> int:
    """Run all rounds and save the results, also after an interruption; returns 1 if requests failed.

    Raises BenchError if it cannot be run as asked and LaunchError if a target does not start.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        bench = prepare(options)
    except ValueError as error:
        raise BenchError(str(error)) from error
    try:
        with progress() as bar:
            rounds = options.rounds + (1 if options.side_by_side else 0)
            runs = rounds * len(options.targets) * len(options.loads)
            task = bar.add_task("starting", total=runs)
            done = iter(range(runs))
            bench.run(lambda text: bar.update(task, description=text, completed=next(done)))
            if options.waterfall:
                bar.update(task, description="waterfall", completed=runs)
                bench.trace()
    finally:
        if text := bench.save():
            print(text)
    traced = [bench.waterfall] if bench.waterfall else []
    made = [*bench.first_pass, *bench.results, *traced]
    return 1 if any(measurement["failures"] for measurement in made) else 0


def prepare(options: argparse.Namespace) -> Bench:
    """Check everything that can be checked before a start; raises ValueError if the options cannot be measured."""
    model = options.model or DEFAULT_MODEL
    workload = chosen(options.workload, options.prompt_tokens, options.output_tokens, options.temperature)
    flags = ["--model", model, "--served-model-name", NAME, *FREE_PORTS, "--log-dir", str(options.out / "logs")]
    if options.scripted:
        flags += token_rate_flags(options.scripted)
    if not any(flag.startswith("--max-in-flight") for flag in options.serve_flags):
        flags.append(f"--max-in-flight={max(_IN_FLIGHT, *(load.count for load in options.loads))}")
    flags += options.serve_flags
    if VLLM_RUST in options.targets:
        check_rust()
    stack = Stack(flags)
    if model == DEMO_MODEL and any(map(is_peer, options.targets)):
        raise ValueError(f"`vllm serve` cannot take {DEMO_MODEL}, which exists as parts only")
    whole = str(stack.model.checkpoint.path) if model in PREPARED else model
    tiles = stack.options.settings.get("TRITON_CHAT_MAX_TILES_PER_IMAGE")
    maker = PromptMaker(
        stack.model.checkpoint.path,
        int(stack.engine_environment["TRITON_CHAT_MAX_MODEL_LEN"]),
        styler=stack.options.styler,
        max_tiles_per_image=int(tiles) if tiles else None,
        preprocessing={name: stack.engine_environment.get(variable, "") for name, variable in _PREPROCESSING.items()},
    )
    check(workload, maker)
    if options.beside_pictures:
        check(WORKLOADS["image"], maker)
    # Any other reason to refuse a request is found here, not after the first start.
    streams(workload, maker, 1, 1, 1, number=0, salt=0)
    part = Share()
    if options.side_by_side and (engines := len(groups(options.targets))) > 1:
        part = share(engines, stack.model.weight_bytes, engine_options(stack), stack.engine_environment)
    flags += vllm_flags(part.options)
    vllm = stack.engine_environment.get("TRITON_CHAT_ENGINE", "vllm") == "vllm"
    return Bench(options, workload, maker, flags, whole, engine_options(stack) | part.options, vllm, part)


def _step(number: int) -> int:
    """Of a slice: forwards, or backwards in every second round."""
    return 1 if number % 2 == 0 else -1


@contextmanager
def progress() -> Iterator[Progress]:
    """Show a progress bar on standard error if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield bar


def _print(measurement: dict[str, Any], load: Arrivals) -> None:
    found = measurement["figures"]
    summary = ", ".join(
        f"{name} {found[name]:.2f}" for name in ("tokens_per_s", "ttft_ms_p50", "itl_ms_p50") if name in found
    )
    if rate := measurement["beside"].get("requests_per_s"):
        summary += f", beside {rate:.2f} pictures/s"
    where = f"round {measurement['round']} {measurement['contender']} {load.label()}"
    print_measurement(f"{where}: {summary}", measurement)
    if found["client_busy"] > 0.85:
        print(
            f"  a client process was at {found['client_busy']:.0%} of a core: give more --client-processes", flush=True
        )
