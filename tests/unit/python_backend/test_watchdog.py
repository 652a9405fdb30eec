# SPDX-License-Identifier: Apache-2.0
"""Nothing of a tritonserver stays half alive, with processes that only bear the names of Triton's."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from python_backend import watchdog as guardian

PATIENCE_S = 60.0
# The child of the stub stands for an engine: it has shared memory mapped, and hears no signal but SIGKILL.
ENGINE = """
import mmap, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.ftruncate(file, mmap.PAGESIZE)
held = mmap.mmap(file, mmap.PAGESIZE)
print("engine", os.getpid(), flush=True)
time.sleep(60)
"""
SERVER = """
import subprocess, sys, time
folder = sys.argv[1]
stub = subprocess.Popen([f"{folder}/triton_python_backend_stub", f"{folder}/stub.sh"], stdin=subprocess.PIPE)
guard = subprocess.Popen(["/bin/bash", f"{folder}/guard.sh"])
time.sleep(60)
"""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def memory_of(folder: Path) -> Path:
    return Path("/dev/shm") / f"triton_chat_test_{folder.parent.name}_{folder.name}"


class Server:
    """A process named tritonserver with a stub, an engine below it and a guardian."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.memory = memory_of(folder)
        (folder / "engine.py").write_text(ENGINE)
        stub = f"{sys.executable} {folder}/engine.py {self.memory} & echo stub $$; wait; read never"
        guard = f"{sys.executable} {guardian.__file__} $PPID & echo guardian $!; wait"
        (folder / "stub.sh").write_text(stub)
        (folder / "guard.sh").write_text(guard)
        # As Triton, it waits for no child that dies; a shell would.
        (folder / "server.py").write_text(SERVER)
        (folder / "tritonserver").symlink_to(os.path.realpath(sys.executable))
        (folder / "triton_python_backend_stub").symlink_to("/bin/bash")
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [folder / "tritonserver", folder / "server.py", folder],
                stdout=log,
                stderr=log,
                env=os.environ | environment,
                start_new_session=True,
            )
        wait_for(lambda: all(name in self.log.read_text() for name in ("stub", "engine", "guardian")))

    def pid(self, name: str) -> int:
        line = next(line for line in self.log.read_text().splitlines() if line.startswith(f"{name} "))
        return int(line.split()[1])

    def watched(self) -> None:
        """Wait until the guardian has looked at everything."""
        time.sleep(2.5 * guardian.PERIOD_S)

    def gone(self, *names: str) -> bool:
        return not any(lives(self.pid(name)) for name in names)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in word for word in process.info["cmdline"] or ()):
            process.kill()
    memory_of(tmp_path).unlink(missing_ok=True)


def test_what_a_killed_tritonserver_leaves_is_ended(folder: Path) -> None:
    server = Server(folder)
    server.watched()
    assert server.memory.exists() and lives(server.pid("engine"))
    server.process.kill()
    server.process.wait(PATIENCE_S)
    wait_for(lambda: server.gone("stub", "engine", "guardian"))
    assert not server.memory.exists()


def test_a_tritonserver_that_lost_a_model_is_ended(folder: Path) -> None:
    server = Server(folder)
    server.watched()
    os.kill(server.pid("stub"), signal.SIGKILL)
    assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
    wait_for(lambda: server.gone("engine", "guardian"))
    assert "the process of a model has died" in server.log.read_text()


def test_under_the_launcher_a_lost_model_is_not_its_business(folder: Path) -> None:
    server = Server(folder, TRITON_CHAT_SUPERVISED="1")
    server.watched()
    os.kill(server.pid("stub"), signal.SIGKILL)
    server.watched()
    assert server.process.poll() is None
    server.process.kill()
    server.process.wait(PATIENCE_S)
    wait_for(lambda: server.gone("engine", "guardian"))


def test_there_is_one_guardian_and_only_of_a_tritonserver(folder: Path) -> None:
    server = Server(folder)
    server.watched()
    for pid in (server.process.pid, os.getpid()):
        second = subprocess.run([sys.executable, guardian.__file__, str(pid)], timeout=PATIENCE_S, check=False)
        assert second.returncode == 0
    assert lives(server.pid("guardian"))


def test_a_process_name_may_hold_anything(folder: Path) -> None:
    odd = folder / "a) Z 1 (b"
    odd.symlink_to("/bin/bash")
    process = subprocess.Popen([odd, "-c", "read never"], stdin=subprocess.PIPE)
    try:
        wait_for(lambda: (found := guardian.read_process(process.pid)) is not None and found.name == odd.name)
        read = guardian.read_process(process.pid)
        assert read is not None and read.parent == os.getpid() and read.alive
    finally:
        process.kill()
        process.wait()
