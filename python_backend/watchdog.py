# SPDX-License-Identifier: Apache-2.0
"""A small process beside tritonserver that lets nothing be left half alive. It uses the standard library alone.

- tritonserver is gone (killed, crashed): the processes of its models may hang, and those of an engine stay. They are
  ended, and their shared memory is removed.
- The process of a Python model is gone: Triton 2.51 does not restart it, goes on calling its model ready, and never
  ends the requests that were inside it. tritonserver is killed, so that clients learn at once and whoever runs it (a
  container's restart policy) starts it anew. Not so under the launcher, which mends this itself and says so by
  TRITON_CHAT_SUPERVISED.

Started by the first Python model that calls `start`; there is one for each tritonserver.
"""

import contextlib
import os
import signal
import socket
import subprocess  # nosec B404 # fixed programs, no shell
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PERIOD_S = 1.0
# How long models whose tritonserver is gone may take to end by themselves, as those without an engine do.
PATIENCE_S = 2.0
_MEMORY_PERIODS = 10
# The kernel keeps 15 characters of a process's name.
_STUB, _TRITONSERVER = "triton_python_b", "tritonserver"
_DEAD = ("Z", "X")


class Process(NamedTuple):
    """One line of the process table. started: in clock ticks since boot; with the id it names a process for good."""

    pid: int
    name: str
    state: str
    parent: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return self.state not in _DEAD


def start() -> None:
    """Start the guardian of the tritonserver that this process, a Python model's, belongs to, unless it has one."""
    process = subprocess.Popen([sys.executable, "-I", __file__, str(os.getppid())], stdin=subprocess.DEVNULL)  # nosec B603 # fixed program, no shell
    # One too many ends at once, and would stay as a zombie.
    threading.Thread(target=process.wait, name="guardian-wait", daemon=True).start()


def read_process(pid: int) -> Process | None:
    """The process, or None where there is none of this id."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in parentheses and may hold any character; the fields after it are numbered from 3.
    name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :].split()
    return Process(pid, name, rest[0], int(rest[1]), int(rest[19]))


def descendants(root: int) -> list[Process]:
    """All processes below this one, parents before children."""
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := read_process(int(entry))):
            children.setdefault(process.parent, []).append(process)
    found = list(children.get(root, ()))
    for process in found:
        found += children.get(process.pid, ())
    return found


def guard(tritonserver: Process, *, end_broken: bool) -> None:
    """Watch until tritonserver is gone, then clear away what it left. end_broken: kill it where a model is dead."""
    family: dict[int, Process] = {}
    memory: set[Path] = set()
    dead: set[int] = set()
    rounds = 0
    while _lives(tritonserver):
        found = [process for process in descendants(tritonserver.pid) if process.pid != os.getpid()]
        family = {process.pid: process for process in found} | {k: v for k, v in family.items() if _lives(v)}
        if rounds % _MEMORY_PERIODS == 0:
            memory.update(path for process in found for path in shared_memory(process.pid))
        dead_before, dead = dead, {process.pid for process in found if _is_dead_stub(process, tritonserver)}
        # One that Triton itself ends is a zombie for a moment.
        if end_broken and dead & dead_before:
            _say("the process of a model has died, which Triton cannot mend: ending tritonserver")
            _kill(tritonserver)
        rounds += 1
        time.sleep(PERIOD_S)
    _clear_away(list(family.values()), memory)


def shared_memory(pid: int) -> Iterator[Path]:
    """Files of /dev/shm that the process has mapped and that still have their names."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            at = line.find("/dev/shm/")  # nosec B108 # a name to look for, not a file to write
            if at >= 0 and not line.endswith(" (deleted)"):
                yield Path(line[at:])


def _clear_away(family: list[Process], memory: set[Path]) -> None:
    left = _wait_for(family)
    # A resource tracker of Python removes what the others leave, and ends with the last of them.
    trackers = [process for process in left if _is_tracker(process)]
    for process in left:
        if process not in trackers:
            memory.update(shared_memory(process.pid))
            _say(f"tritonserver is gone: ending {process.name} ({process.pid}), which it left")
            _kill(process)
    for process in _wait_for(trackers):
        _kill(process)
    for path in memory:
        path.unlink(missing_ok=True)


def _wait_for(processes: list[Process]) -> list[Process]:
    """Those that have not ended by themselves after a moment."""
    end = time.monotonic() + PATIENCE_S
    while (left := [process for process in processes if _lives(process)]) and time.monotonic() < end:
        time.sleep(PERIOD_S / 4)
    return left


def _is_tracker(process: Process) -> bool:
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    return False


def _is_dead_stub(process: Process, tritonserver: Process) -> bool:
    return process.parent == tritonserver.pid and process.name.startswith(_STUB) and not process.alive


def _lives(process: Process) -> bool:
    now = read_process(process.pid)
    return now is not None and now.started == process.started and now.alive


def _kill(process: Process) -> None:
    if _lives(process):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _say(text: str) -> None:
    sys.stderr.write(f"guardian: {text}\n")
    sys.stderr.flush()


def main(tritonserver: int) -> int:
    """Guard this tritonserver; at once 0 where that id is no tritonserver or already guarded."""
    # It goes when tritonserver does, which may take its time to end.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    process = read_process(tritonserver)
    if process is None or process.name != _TRITONSERVER:
        return 0
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            claim.bind(f"\0triton-chat-guardian-{process.pid}-{process.started}")
        except OSError:
            return 0
        guard(process, end_broken=not os.environ.get("TRITON_CHAT_SUPERVISED"))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
