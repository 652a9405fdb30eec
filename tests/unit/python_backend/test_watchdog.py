# SPDX-License-Identifier: Apache-2.0
"""The watchdog beside processes that only have the names of Triton's."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from common.processes import read_process
from python_backend import watchdog

ROOT = Path(__file__).parents[3]
WATCHDOG = [sys.executable, "-m", "python_backend.watchdog"]
PATIENCE_S = 60.0
# The child of the stub plays an engine: it has shared memory mapped, and only SIGKILL ends it.
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
watch = subprocess.Popen(["/bin/bash", f"{folder}/watch.sh"])
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
    """A process named tritonserver with a stub, an engine below it and a watchdog."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.memory = memory_of(folder)
        (folder / "engine.py").write_text(ENGINE)
        stub = f"{sys.executable} {folder}/engine.py {self.memory} & echo stub $$; wait; read never"
        watch = f"{sys.executable} -m python_backend.watchdog $PPID & echo watchdog $!; wait"
        (folder / "stub.sh").write_text(stub)
        (folder / "watch.sh").write_text(watch)
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
                cwd=ROOT,
                env=os.environ | environment,
                start_new_session=True,
            )
        wait_for(lambda: all(name in self.log.read_text() for name in ("stub", "engine", "watchdog")))

    def pid(self, name: str) -> int:
        line = next(line for line in self.log.read_text().splitlines() if line.startswith(f"{name} "))
        return int(line.split()[1])

    def wait_for_watchdog(self) -> None:
        """Wait until the watchdog has read the process table twice."""
        time.sleep(2.5 * watchdog.PERIOD_S)

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


def test_processes_of_a_killed_tritonserver_are_ended(folder: Path) -> None:
    server = Server(folder)
    server.wait_for_watchdog()
    assert server.memory.exists() and lives(server.pid("engine"))
    server.process.kill()
    server.process.wait(PATIENCE_S)
    wait_for(lambda: server.gone("stub", "engine", "watchdog"))
    assert not server.memory.exists()


def test_a_tritonserver_that_lost_a_model_is_killed(folder: Path) -> None:
    server = Server(folder)
    server.wait_for_watchdog()
    os.kill(server.pid("stub"), signal.SIGKILL)
    assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
    wait_for(lambda: server.gone("engine", "watchdog"))
    assert "the process of a model has died" in server.log.read_text()


def test_under_the_launcher_a_tritonserver_that_lost_a_model_is_not_killed(folder: Path) -> None:
    server = Server(folder, TRITON_CHAT_SUPERVISED="1")
    server.wait_for_watchdog()
    os.kill(server.pid("stub"), signal.SIGKILL)
    server.wait_for_watchdog()
    assert server.process.poll() is None
    server.process.kill()
    server.process.wait(PATIENCE_S)
    wait_for(lambda: server.gone("engine", "watchdog"))


def test_a_process_that_stays_stopped_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STOPPED_PATIENCE_S", 0.1)
    server = Server(folder, TRITON_CHAT_SUPERVISED="1")
    triton = read_process(server.process.pid)
    assert triton is not None
    watching = threading.Thread(target=watchdog.watch, args=(triton,), kwargs={"kill_degraded": False})
    watching.start()
    server.wait_for_watchdog()
    assert lives(server.pid("stub"))
    os.kill(server.pid("stub"), signal.SIGSTOP)
    wait_for(lambda: not lives(server.pid("stub")))
    server.process.kill()
    watching.join(PATIENCE_S)


def test_a_tritonserver_that_outlives_its_launcher_is_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to end while it loads a model, Triton 2.51 may wait for ever."""
    monkeypatch.setattr(watchdog, "ORPHAN_PATIENCE_S", 0.0)
    launcher = subprocess.Popen(["sleep", "600"])
    server = Server(folder, TRITON_CHAT_SUPERVISED=str(launcher.pid))
    about, triton = read_process(launcher.pid), read_process(server.process.pid)
    watching = threading.Thread(
        target=watchdog.watch, args=(triton,), kwargs={"kill_degraded": False, "launcher": about}
    )
    watching.start()
    server.wait_for_watchdog()
    assert server.process.poll() is None
    launcher.kill()
    launcher.wait()
    assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
    watching.join(PATIENCE_S)
    wait_for(lambda: server.gone("stub", "engine"))


def test_there_is_one_watchdog_and_only_of_a_tritonserver(folder: Path) -> None:
    server = Server(folder)
    server.wait_for_watchdog()
    for pid in (server.process.pid, os.getpid()):
        second = subprocess.run([*WATCHDOG, str(pid)], cwd=ROOT, timeout=PATIENCE_S, check=False)
        assert second.returncode == 0
    assert lives(server.pid("watchdog"))


def test_it_is_started_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the current directory nor PYTHONPATH may replace one of its modules."""
    commands: list[list[str]] = []

    class FakeProcess:
        def __init__(self, command: list[str], **options: object) -> None:
            commands.append(command)

        def wait(self) -> None: ...

    monkeypatch.setattr(subprocess, "Popen", FakeProcess)
    watchdog.start()
    assert commands == [[sys.executable, "-I", "-m", "python_backend.watchdog", str(os.getppid())]]


def test_it_imports_nothing_but_the_standard_library() -> None:
    code = "import sys; before = set(sys.modules); import python_backend.watchdog; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    ours = {"python_backend", "python_backend.heartbeat", "python_backend.watchdog"}
    assert loaded == {"common", "common.processes"} | ours
