# SPDX-License-Identifier: Apache-2.0
"""Read Linux's process table and end processes, with the standard library only."""

import os
import platform
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

# The name of triton_python_backend_stub, the process of a Python model, of which the kernel keeps 15 characters.
STUB_NAME = "triton_python_b"
_DEAD = ("Z", "X")
# The number of the system call wait4.
_WAIT4 = {"x86_64": 61, "aarch64": 260}.get(platform.machine())


class Process(NamedTuple):
    """One line of the process table.

    name: at most 15 characters. started: in clock ticks since boot; together with the id it identifies a process.
    """

    pid: int
    name: str
    state: str
    parent: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it runs; a zombie does not."""
        return self.state not in _DEAD

    @property
    def is_stub(self) -> bool:
        """Whether it is the process of a Python model of Triton's."""
        return self.name.startswith(STUB_NAME)


def read_process(pid: int) -> Process | None:
    """Read the process of this id, or None if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name is in parentheses and may hold any character; the fields after it are numbered from 3.
    name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return Process(pid, name, rest[0], int(rest[1]), int(rest[19]))


def children(parent: int) -> list[Process]:
    """The children of a process, zombies included."""
    return [process for process in _all_processes() if process.parent == parent]


def descendants(root: int) -> list[Process]:
    """All processes below this one, parents before children."""
    by_parent: dict[int, list[Process]] = {}
    for process in _all_processes():
        by_parent.setdefault(process.parent, []).append(process)
    found = list(by_parent.get(root, ()))
    for process in found:
        found += by_parent.get(process.pid, ())
    return found


def session_members(session: int) -> list[int]:
    """Ids of the living processes of a session."""
    members = [pid for pid in _all_ids() if _session_of(pid) == session]
    return [pid for pid in members if (process := read_process(pid)) is not None and process.alive]


def command_line(pid: int) -> list[str]:
    """The arguments that the process was started with; empty if it is gone or a zombie."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return [os.fsdecode(word) for word in words if words != [b""]]
    return []


def is_resource_tracker(pid: int) -> bool:
    """Whether it is a resource tracker of Python's multiprocessing, which removes what other processes leave."""
    return any("resource_tracker" in word for word in command_line(pid))


def shared_memory(pid: int) -> set[Path]:
    """Files of /dev/shm that the process has mapped and that still have their names."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    names = {line[line.index("/dev/shm/") :] for line in maps.splitlines() if "/dev/shm/" in line}  # nosec B108 # a name to look for, not a file to write
    return {Path(name) for name in names if not name.endswith(" (deleted)")}


def awaited_children(parent: int) -> set[int]:
    """Ids of the children whose end a thread of this process waits for; empty if the kernel does not tell."""
    awaited = set()
    for file in Path(f"/proc/{parent}/task").glob("*/syscall"):
        with suppress(OSError):
            call = file.read_text(encoding="ascii").split()
            if len(call) > 1 and call[0] == str(_WAIT4):
                awaited.add(int(call[1], 16))
    return awaited


def still_runs(process: Process) -> bool:
    """Whether this process lives; another one that has its id by now does not count."""
    now = read_process(process.pid)
    return now is not None and now.started == process.started and now.alive


def kill(pid: int) -> None:
    """Send SIGKILL, if there is still a process of this id."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _all_ids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _all_processes() -> Iterator[Process]:
    return (process for pid in _all_ids() if (process := read_process(pid)) is not None)


def _session_of(pid: int) -> int | None:
    with suppress(ProcessLookupError, PermissionError):
        return os.getsid(pid)
    return None
