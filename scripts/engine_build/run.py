# SPDX-License-Identifier: Apache-2.0
"""Run the steps of a build, and resume a failed build."""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess  # nosec B404 # the commands of the plan, no shell
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.checkpoint import read_json
from common.files import reason
from scripts.engine_build.plan import Step
from scripts.shared.errors import EngineError

_DONE = "done.json"
_POLL_S = 0.2
_LOG_LINES = 20
_END_S = 10

# Called a few times a second with a step's name, the elapsed seconds and the tool's last line.
Progress = Callable[[str, float, str], None]


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """Lock the folder of an unfinished build; raises EngineError if another process has locked it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EngineError(f"another build is at work in '{folder}'.") from None
        yield


def is_done(step: Step, work: Path, key: str) -> bool:
    """Whether the same step has been run on the same input and its files exist."""
    done = read_json(work / _DONE).get(step.name)
    return done == _fingerprint(step, key) and not _lacking(step)


def run_step(step: Step, work: Path, key: str, progress: Progress) -> None:
    """Run a step and record that it is done; its log stays in the work folder.

    key: identifies the step's input, besides its command. Raises EngineError if the tool fails.
    """
    done = read_json(work / _DONE)
    done.pop(step.name, None)
    _note(work, done)
    shutil.rmtree(step.writes, ignore_errors=True)
    step.writes.mkdir(parents=True)
    log = work / f"{step.name}.log"
    status = _run(step, log, progress)
    if status != 0:
        raise EngineError(f"{step.name} failed (exit status {status}); its log is {log}.", log=last_lines(log))
    lacking = _lacking(step)
    if lacking:
        raise EngineError(
            f"{step.name} wrote no {', '.join(lacking)} to '{step.writes}'; see {log}.", log=last_lines(log)
        )
    _note(work, {**done, step.name: _fingerprint(step, key)})


def last_lines(log: Path, count: int = _LOG_LINES) -> tuple[str, ...]:
    """The last lines of a log; empty if there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(lines[-count:])


def _run(step: Step, log: Path, progress: Progress) -> int:
    with log.open("wb") as output:
        try:
            # A session of its own, so that the tools' child processes can be ended with them.
            process = subprocess.Popen(  # nosec B603 # the plan's command, no shell
                step.command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise EngineError(f"{step.command[0]} cannot be run: {reason(error)}.") from error
    began = time.monotonic()
    try:
        while process.poll() is None:
            progress(step.name, time.monotonic() - began, "".join(last_lines(log, 1)))
            time.sleep(_POLL_S)
    finally:
        _end(process)
    return process.returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the tool and all its processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            continue


def _fingerprint(step: Step, key: str) -> str:
    return hashlib.sha256(json.dumps([key, *step.command]).encode()).hexdigest()


def _lacking(step: Step) -> Sequence[str]:
    return [name for name in step.files if not (step.writes / name).is_file()]


def _note(work: Path, done: dict[str, str]) -> None:
    unfinished = work / f"{_DONE}.new"
    unfinished.write_text(json.dumps(done), encoding="utf-8")
    unfinished.replace(work / _DONE)
