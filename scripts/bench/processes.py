# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of a target's processes: those in /proc at and below the ones that were started."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# The names that vLLM gives its processes.
_VLLM = re.compile(rb"^VLLM::(\w+)")
_ROLES = {"EngineCore": "engine core", "Worker": "engine worker", "ApiServer": "API server", "APIServer": "API server"}


@dataclass(frozen=True, slots=True)
class Usage:
    """One process: its role, seconds of CPU (user and system) so far, and resident memory in bytes."""

    role: str
    cpu_s: float
    rss: int


# By process id and start time, as ids are reused.
Snapshot = dict[tuple[int, int], Usage]


def snapshot(roots: Mapping[str, int], proc: Path = PROC) -> Snapshot:
    """Read all living processes at and below the roots (role -> process id)."""
    stats = dict(_stats(proc))
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    found: Snapshot = {}
    for role, root in roots.items():
        waiting = [root] if root in stats else []
        while waiting:
            pid = waiting.pop()
            stat = stats[pid]
            name = role if pid == root else _role(pid, proc) or role
            found[pid, stat.started] = Usage(name, stat.cpu_s, stat.rss)
            waiting += children.get(pid, [])
    return found


def spent(before: Snapshot, after: Snapshot) -> dict[str, float]:
    """CPU seconds by role between two snapshots, summed over the processes of a role; ended processes are missing."""
    seconds: dict[str, float] = {}
    for key, usage in after.items():
        earlier = before[key].cpu_s if key in before else 0.0
        seconds[usage.role] = seconds.get(usage.role, 0.0) + usage.cpu_s - earlier
    return seconds


def memory(taken: Snapshot) -> dict[str, int]:
    """Resident bytes by role, summed over the processes of a role."""
    sizes: dict[str, int] = {}
    for usage in taken.values():
        sizes[usage.role] = sizes.get(usage.role, 0) + usage.rss
    return sizes


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    started: int
    cpu_s: float
    rss: int


def _stats(proc: Path) -> Iterator[tuple[int, _Stat]]:
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                # The name in parentheses may hold anything, so the fields are counted from its end (proc(5)).
                fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            except OSError:
                continue
            ticks = int(fields[11]) + int(fields[12])
            yield (
                int(folder.name),
                _Stat(int(fields[1]), int(fields[19]), ticks / _TICKS_PER_S, int(fields[21]) * _PAGE),
            )


def _role(pid: int, proc: Path) -> str | None:
    """The role of a child process; None if it counts as its parent."""
    try:
        line = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    if named := _VLLM.match(line):
        kind = named[1].decode()
        return next((role for start, role in _ROLES.items() if kind.startswith(start)), kind)
    words = line.split(b"\0")
    model = next((word for word in words if word.endswith(b"/1/model.py")), None)
    if model is not None:
        # A Python model's stub is called by the model's file.
        return f"stub {Path(model.decode()).parents[1].name}"
    if words[0].endswith(b"/vllm-rs"):
        return "Rust front end"
    return "resource tracker" if b"resource_tracker" in line else None
