# SPDX-License-Identifier: Apache-2.0
"""Run one load on a running target and collect its figures, CPU time, memory and failures."""

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.bench.figures import failures, figures
from scripts.bench.processes import Snapshot, memory, snapshot, spent
from scripts.bench.questions import Stream
from scripts.bench.targets import RunningTarget


def measure_load(running: RunningTarget, name: str, load: Sequence[Stream], client_processes: int) -> dict[str, Any]:
    """Run the streams against the target `name`: figures, CPU seconds and memory of each role, failures."""
    before: list[Snapshot] = []
    outcome = running.loads[name](load, client_processes, lambda: before.append(snapshot(running.roots)))
    after = snapshot(running.roots)
    found = figures(outcome.answers)
    thousands = found.get("output_tokens", 0) / 1000
    cpu = spent(before[0], after)
    beside = figures(outcome.beside) if outcome.beside else {}
    return {
        "figures": found | {"client_busy": outcome.busy},
        "cpu_s_per_1k_tokens": {role: seconds / thousands for role, seconds in cpu.items()} if thousands else {},
        "rss_mib": mib(after),
        "failures": failures([*outcome.answers, *outcome.beside]),
        "beside": beside,
    }


def mib(taken: Snapshot) -> dict[str, float]:
    """Resident memory by role, in MiB."""
    return {role: round(size / 2**20, 1) for role, size in memory(taken).items()}


def print_measurement(line: str, measurement: Mapping[str, Any]) -> None:
    """Print a line, and below it the failures of the measurement."""
    print(line, flush=True)
    for reason, count in measurement["failures"].items():
        print(f"  {count} failed: {reason}", flush=True)
