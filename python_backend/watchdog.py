# SPDX-License-Identifier: Apache-2.0
"""Watchdog: cleans up after a dead tritonserver, and kills a tritonserver that lost a model's process.

- When tritonserver is gone (killed, crashed), the processes of its models may hang, and those of an engine stay. The
  watchdog ends them and removes their shared memory.
- When the process of a Python model is gone, Triton 2.51 does not restart it, goes on reporting its model as ready, and
  never ends the requests inside it. The watchdog kills tritonserver, so that clients get an error at once and a
  supervisor (a container's restart policy, systemd) restarts it. Under the launcher, which sets TRITON_CHAT_SUPERVISED
  to its process id and restarts it itself, the watchdog does not.
- When the launcher is gone, tritonserver gets SIGTERM. One that was loading a model may never end. The watchdog then
  kills it.
- While a model's process stands still, the watchdog keeps Triton from giving it up (python_backend/heartbeat.py). One
  that stays stopped for a minute is killed.

It is a process beside tritonserver. Python models call `start`; only one watchdog stays for each tritonserver. It
imports the standard library, `common.processes` and `python_backend.heartbeat` only.
"""

import os
import signal
import socket
import subprocess  # nosec B404 # fixed programs, no shell
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from common.processes import (
    Process,
    children,
    descendants,
    is_resource_tracker,
    kill,
    read_process,
    shared_memory,
    still_runs,
)
from python_backend.heartbeat import Heartbeat

PERIOD_S = 1.0
# How long the models of a dead tritonserver may take to end by themselves, as models without an engine do.
PATIENCE_S = 2.0
# How long tritonserver may take to end by itself without the launcher; its own limit is 20 s.
ORPHAN_PATIENCE_S = 40.0
# How long the process of a model may be stopped (SIGSTOP). Its requests, and those behind them, wait meanwhile.
STOPPED_PATIENCE_S = 60.0
_STOPPED = "T"
_MEMORY_PERIODS = 10
_TRITONSERVER = "tritonserver"


def start() -> None:
    """Start the watchdog of the tritonserver that this process, a Python model's, belongs to, unless it has one."""
    # Isolated, so that neither the current directory nor PYTHONPATH can replace a module.
    command = [sys.executable, "-I", "-m", "python_backend.watchdog", str(os.getppid())]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # nosec B603 # fixed program, no shell
    # A second watchdog ends at once, and would stay as a zombie.
    threading.Thread(target=process.wait, name="watchdog-wait", daemon=True).start()


def watch(tritonserver: Process, *, kill_degraded: bool, launcher: Process | None = None) -> None:
    """Wait until tritonserver is gone, then clean up.

    kill_degraded: kill it if a model's process has died. launcher: without which it must not go on; None for any.
    """
    family: dict[int, Process] = {}
    alone_since: float | None = None
    memory: set[Path] = set()
    dead: set[int] = set()
    stopped: dict[int, float] = {}
    rounds = 0
    heart = Heartbeat(lambda: children(tritonserver.pid), _log)
    heart.start()
    while still_runs(tritonserver):
        found = [process for process in descendants(tritonserver.pid) if process.pid != os.getpid()]
        family = {process.pid: process for process in found} | {k: v for k, v in family.items() if still_runs(v)}
        heart.keep([process for process in found if process.parent == tritonserver.pid])
        if rounds % _MEMORY_PERIODS == 0:
            memory.update(*(shared_memory(process.pid) for process in found))
        dead_before, dead = dead, {process.pid for process in found if _is_dead_stub(process, tritonserver)}
        # A stub that Triton itself ends is a zombie for a moment, so it must be one in two rounds.
        if kill_degraded and dead & dead_before:
            _log("the process of a model has died, which Triton cannot repair: ending tritonserver")
            kill(tritonserver.pid)
        now = time.monotonic()
        stopped = {one.pid: stopped.get(one.pid, now) for one in found if one.is_stub and one.state == _STOPPED}
        for pid in [pid for pid, since in stopped.items() if now - since > STOPPED_PATIENCE_S]:
            _log(f"the process {pid} of a model has been stopped for {STOPPED_PATIENCE_S:g} s: ending it")
            kill(pid)
        if launcher is not None and not still_runs(launcher):
            alone_since = alone_since or time.monotonic()
            if time.monotonic() - alone_since > ORPHAN_PATIENCE_S:
                _log("tritonserver has not ended after its launcher: ending it")
                kill(tritonserver.pid)
        rounds += 1
        time.sleep(PERIOD_S)
    _clean_up(list(family.values()), memory)


def _clean_up(family: list[Process], memory: set[Path]) -> None:
    left = _wait_for(family)
    # A resource tracker of Python removes what the other processes leave, and ends after the last of them.
    trackers = [process for process in left if is_resource_tracker(process.pid)]
    for process in left:
        if process not in trackers:
            memory.update(shared_memory(process.pid))
            _log(f"tritonserver is gone: ending {process.name} ({process.pid}), which it left")
            _kill(process)
    for process in _wait_for(trackers):
        _kill(process)
    for path in memory:
        path.unlink(missing_ok=True)


def _wait_for(processes: list[Process]) -> list[Process]:
    """The processes that have not ended by themselves within PATIENCE_S."""
    end = time.monotonic() + PATIENCE_S
    while (left := [process for process in processes if still_runs(process)]) and time.monotonic() < end:
        time.sleep(PERIOD_S / 4)
    return left


def _is_dead_stub(process: Process, tritonserver: Process) -> bool:
    return process.parent == tritonserver.pid and process.is_stub and not process.alive


def _kill(process: Process) -> None:
    if still_runs(process):
        kill(process.pid)


def _log(text: str) -> None:
    # It has more to do if nobody can read it, as with a full disk.
    with suppress(OSError):
        sys.stderr.write(f"watchdog: {text}\n")
        sys.stderr.flush()


def main(tritonserver: int) -> int:
    """Watch this tritonserver; returns 0 at once if the id is no tritonserver or already has a watchdog."""
    # It ends after tritonserver, which may take its time to end.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    process = read_process(tritonserver)
    if process is None or process.name != _TRITONSERVER:
        return 0
    with socket.socket(socket.AF_UNIX) as claim:
        try:
            claim.bind(f"\0triton-chat-watchdog-{process.pid}-{process.started}")
        except OSError:
            return 0
        supervisor = os.environ.get("TRITON_CHAT_SUPERVISED", "")
        launcher = read_process(int(supervisor)) if supervisor.isdecimal() else None
        watch(process, kill_degraded=not supervisor, launcher=launcher)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
