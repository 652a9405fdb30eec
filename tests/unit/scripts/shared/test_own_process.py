# SPDX-License-Identifier: Apache-2.0
"""Work in a process of its own: its result, its errors, and its end."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scripts.shared.errors import CommandError
from scripts.shared.own_process import in_own_process
from scripts.split.errors import SplitError
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[4]


def refuse(kind: type[Exception]) -> None:
    error = kind("for this reason")
    if isinstance(error, ImportError):
        error.name = "torch"
    raise error


def note_and_wait(file: Path) -> None:
    file.write_text(str(os.getpid()))
    signal.pause()


def test_it_is_another_process() -> None:
    assert in_own_process(os.getpid) != os.getpid()


@pytest.mark.parametrize("kind", [SplitError, ImportError])
def test_its_error_is_raised_here(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="for this reason") as raised:
        in_own_process(refuse, kind)
    assert getattr(raised.value, "name", "torch") == "torch"


class NeedsMore(Exception):
    """Can be pickled, and not made from its pickle."""

    def __init__(self, text: str, *, more: str = "") -> None:
        super().__init__(text, more)

    def __reduce__(self) -> tuple:
        return NeedsMore, ("a", "b")


def test_an_error_that_cannot_travel_is_told() -> None:
    with pytest.raises(CommandError, match="NeedsMore"):
        in_own_process(refuse, NeedsMore)


def test_it_is_killed_with_an_interrupted_call(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    watching = threading.Thread(
        target=lambda: (wait_until(file.is_file, "it works"), os.kill(os.getpid(), signal.SIGALRM))
    )
    watching.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_own_process(note_and_wait, file)
    finally:
        watching.join()
        signal.signal(signal.SIGALRM, before)
    assert not multiprocessing.active_children()


def test_one_that_is_killed_is_an_error() -> None:
    with pytest.raises(CommandError, match="was killed"):
        in_own_process(signal.raise_signal, signal.SIGKILL)


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    call = "from tests.unit.scripts.shared.test_own_process import note_and_wait as work"
    program = (
        f"from pathlib import Path\nfrom scripts.shared.own_process import in_own_process\n{call}\n"
        f"in_own_process(work, Path({str(file)!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_until(lambda: file.is_file() and file.read_text() != "", "the work has begun")
    parent.kill()
    parent.wait()
    wait_until(lambda: not Path(f"/proc/{file.read_text()}").is_dir() or is_zombie(file.read_text()), "it is gone")


def is_zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
