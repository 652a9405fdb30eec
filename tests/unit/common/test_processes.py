# SPDX-License-Identifier: Apache-2.0
"""The process table, read from real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import processes
from tests.support.waiting import wait_until

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
zombie = subprocess.Popen(["true"])
print(child.pid, zombie.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[tuple[int, int, int]]:
    """Ids of a parent in a session of its own, its running child and its dead one."""
    parent = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout is not None
    child, zombie = map(int, parent.stdout.readline().split())
    wait_until(lambda: not _read(zombie).alive, "the child is dead")
    yield parent.pid, child, zombie
    for pid in (parent.pid, child):
        processes.kill(pid)
    parent.wait()
    parent.stdout.close()


def _read(pid: int) -> processes.Process:
    process = processes.read_process(pid)
    assert process is not None
    return process


def test_a_family_is_found(family: tuple[int, int, int]) -> None:
    parent, child, zombie = family
    assert {process.pid: process.alive for process in processes.children(parent)} == {child: True, zombie: False}
    below = [process.pid for process in processes.descendants(os.getpid())]
    assert below.index(parent) < below.index(child)
    assert set(processes.session_members(parent)) == {parent, child}
    assert processes.command_line(child) == [sys.executable, "-c", "import time; time.sleep(60)"]
    assert processes.command_line(zombie) == []


def test_a_killed_process_no_longer_runs(family: tuple[int, int, int]) -> None:
    child = _read(family[1])
    assert processes.still_runs(child) and not processes.still_runs(child._replace(started=child.started - 1))
    processes.kill(child.pid)
    wait_until(lambda: not processes.still_runs(child), "the process is gone")


def test_a_missing_process_is_none() -> None:
    missing = 2**22 + 1
    assert processes.read_process(missing) is None
    assert processes.command_line(missing) == [] and processes.shared_memory(missing) == set()
    processes.kill(missing)


def test_a_process_name_may_hold_anything(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to("/bin/bash")
    process = subprocess.Popen([odd, "-c", "read never"], stdin=subprocess.PIPE)
    try:
        wait_until(
            lambda: (found := processes.read_process(process.pid)) is not None and found.name == odd.name,
            "it is started",
        )
        read = processes.read_process(process.pid)
        assert read is not None and read.parent == os.getpid() and read.alive
    finally:
        process.kill()
        process.wait()


def test_children_whose_end_is_waited_for() -> None:
    waits = 'import subprocess; child = subprocess.Popen(["sleep", "60"]); print(child.pid, flush=True); child.wait()'
    parent = subprocess.Popen([sys.executable, "-c", waits], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    wait_until(lambda: processes.awaited_children(parent.pid) == {child}, "the parent waits")
    processes.kill(child)
    parent.wait()
    parent.stdout.close()
    assert processes.awaited_children(parent.pid) == set()
