# SPDX-License-Identifier: Apache-2.0
"""Parts of the stack as child processes: no process and no shared memory outlives them."""

import mmap
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scripts.launcher.child_process import ChildProcess

PATIENCE_S = 60.0
SLEEPER = "import subprocess, time; subprocess.Popen(['sleep', '60']); print('up', flush=True); time.sleep(60)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def start(tmp_path: Path, code: str) -> ChildProcess:
    part = ChildProcess("part", [sys.executable, "-c", code], os.environ, tmp_path / "part.log")
    wait_for(lambda: "up" in part.lines())
    return part


def test_a_part_runs_in_the_folder_that_it_is_given(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd())"
    first = ChildProcess(
        "part", [sys.executable, "-c", code], os.environ, tmp_path / "part.log", folder=tmp_path / "own"
    )
    wait_for(lambda: first.exit_status() is not None)
    second = first.restart()
    wait_for(lambda: second.exit_status() is not None)
    assert second.log_path.read_text() == f"{tmp_path / 'own'}\n" * 2


def test_the_log_of_a_part_whose_folder_is_removed_is_still_read(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    part = ChildProcess("part", ["sh", "-c", "echo one; read never || true; echo two"], os.environ, folder / "part.log")
    wait_for(lambda: part.exit_status() is not None)
    shutil.rmtree(folder)
    assert part.lines() == part.new_lines() == ["one", "two"]
    part.stop(0.0)
    again = part.restart()
    wait_for(lambda: again.exit_status() is not None)
    assert again.log_path.read_text().splitlines() == again.lines() == ["one", "two"]


def test_a_part_is_restarted_without_a_log_if_there_can_be_none(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    part = ChildProcess("part", ["sh", "-c", "echo up"], os.environ, folder / "part.log")
    wait_for(lambda: part.exit_status() is not None)
    shutil.rmtree(folder)
    folder.write_text("a file in its place")
    again = part.restart()
    wait_for(lambda: again.exit_status() is not None)
    assert again.exit_status() == 0 and again.lines() == again.new_lines() == []
    with pytest.raises(OSError, match="logs"):
        ChildProcess("part", ["true"], os.environ, folder / "part.log")


@pytest.mark.parametrize("way", ["renamed", "cut off"])
def test_a_log_may_be_rotated(tmp_path: Path, way: str) -> None:
    code = "import sys; [print(line, end='', flush=True) for line in open(sys.argv[1])]"
    lines = tmp_path / "fifo"
    os.mkfifo(lines)
    part = ChildProcess("part", [sys.executable, "-c", code, str(lines)], os.environ, tmp_path / "part.log")
    with lines.open("w") as writer:
        print("a first line", file=writer, flush=True)
        wait_for(lambda: part.new_lines() == ["a first line"])
        if way == "renamed":
            part.log_path.rename(tmp_path / "part.log.1")
        else:
            os.truncate(part.log_path, 0)
        print("second", file=writer, flush=True)
        wait_for(lambda: part.lines()[-1:] == ["second"])
    wait_for(lambda: part.exit_status() is not None)
    assert part.new_lines() == ["second"]
    part.stop(0.0)


@pytest.mark.parametrize("code", [SLEEPER, DEAF], ids=["polite", "deaf"])
def test_stop_leaves_nothing_of_the_session(tmp_path: Path, code: str) -> None:
    part = start(tmp_path, code)
    wait_for(lambda: len(part.session()) == 2)
    part.stop(grace_s=0.5)
    assert part.exit_status() is not None
    wait_for(lambda: not part.session())


def test_children_are_ended_even_if_the_part_is_gone_already(tmp_path: Path) -> None:
    part = start(tmp_path, SLEEPER)
    os.kill(part.pid, signal.SIGKILL)
    wait_for(lambda: part.exit_status() == -signal.SIGKILL)
    assert len(part.session()) == 1
    part.stop(grace_s=5)
    wait_for(lambda: not part.session())


def test_hurry_does_not_wait(tmp_path: Path) -> None:
    part = start(tmp_path, DEAF)
    begun = time.monotonic()
    part.stop(grace_s=60, hurry=lambda: True)
    assert time.monotonic() - begun < 10


def test_shared_memory_of_what_was_killed_is_removed(tmp_path: Path) -> None:
    memory = Path("/dev/shm") / f"triton_chat_test_{uuid.uuid4().hex}"
    code = f"""
        import mmap, os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        file = os.open({str(memory)!r}, os.O_CREAT | os.O_RDWR)
        os.ftruncate(file, {mmap.PAGESIZE})
        held = mmap.mmap(file, {mmap.PAGESIZE})
        print("up", flush=True)
        time.sleep(60)
    """
    part = start(tmp_path, textwrap.dedent(code))
    assert memory.exists()
    part.stop(grace_s=0.1)
    assert not memory.exists()


def test_parts_end_when_the_launcher_is_killed(tmp_path: Path) -> None:
    code = f"""
        import os, sys, time
        from pathlib import Path
        from scripts.launcher.child_process import ChildProcess
        part = ChildProcess("part", [sys.executable, "-c", {SLEEPER!r}], os.environ, Path({str(tmp_path / "part.log")!r}))
        print(part.pid, flush=True)
        time.sleep(60)
    """
    launcher = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    part_pid = int(launcher.stdout.readline())
    wait_for(lambda: (tmp_path / "part.log").read_text() == "up\n")
    children = psutil.Process(part_pid).children()
    launcher.kill()
    launcher.wait(PATIENCE_S)
    launcher.stdout.close()
    wait_for(lambda: not psutil.pid_exists(part_pid))
    for child in children:
        child.kill()


def test_the_log_keeps_a_parts_output(tmp_path: Path) -> None:
    part = ChildProcess(
        "part", [sys.executable, "-c", "print('é\\n' * 10); raise SystemExit(3)"], os.environ, tmp_path / "l"
    )
    wait_for(lambda: part.exit_status() == 3)
    assert part.lines(most=2) == ["é", ""]
    assert part.new_lines()[:2] == ["é", "é"]
    assert part.new_lines() == []
    part.stop(grace_s=1)
