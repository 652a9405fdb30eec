# SPDX-License-Identifier: Apache-2.0
"""The health flags of processes that only have the names and the memory of Triton's."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.processes import STUB_NAME, Process, children, command_line, read_process
from python_backend import heartbeat
from python_backend.heartbeat import Flag, Heartbeat
from tests.support.waiting import wait_until

# Where the count of users and, 16 bytes later, the flags begin.
OFFSET = 5000
REGION = "region"


class Stub:
    """A process with a stub's name and arguments that waits, and its region of shared memory."""

    def __init__(self, folder: Path, offset: object = OFFSET, *, users: int = 1, flags: bytes = b"\0\0\0\1") -> None:
        self.memory = folder / REGION
        self.memory.write_bytes(b"\0" * OFFSET + users.to_bytes(4, "little") + b"\xff" * 12 + flags + b"\7" * 9000)
        program = folder / "triton_python_backend_stub"
        if not program.exists():
            program.symlink_to(shutil.which("bash") or "/bin/bash")
        script = folder / "model.py"
        script.write_text("read never\n")
        words = [script, REGION, "1048576", "1048576", str(os.getpid()), "/lib", str(offset), "vit_0_0", "DEFAULT"]
        self.process = subprocess.Popen([program, *words], stdin=subprocess.PIPE)
        # A process has its new name a moment before its new arguments.
        wait_until(lambda: self.about.is_stub and len(command_line(self.process.pid)) > 1, "the program runs")

    @property
    def about(self) -> Process:
        found = read_process(self.process.pid)
        assert found is not None
        return found

    @property
    def healthy(self) -> int:
        return self.memory.read_bytes()[OFFSET + 16]

    def clear(self) -> None:
        """As Triton does once a second."""
        with self.memory.open("r+b") as memory:
            memory.seek(OFFSET + 16)
            memory.write(b"\0")


@pytest.fixture
def make_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stub]]:
    monkeypatch.setattr(heartbeat, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(heartbeat, "_SEARCH_PERIOD_S", 0.0)
    made: list[Stub] = []

    def make(*arguments: object, **options: object) -> Stub:
        made.append(Stub(tmp_path, *arguments, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for stub in made:
        stub.process.kill()
        stub.process.wait()


def stubs() -> list[Process]:
    return [child for child in children(os.getpid()) if child.name == STUB_NAME]


def test_a_process_that_stands_still_stays_healthy_and_a_dead_one_does_not(make_stub: Callable[..., Stub]) -> None:
    log: list[str] = []
    stub, heart = make_stub(), Heartbeat(stubs, log.append)
    before = stub.memory.read_bytes()
    os.kill(stub.process.pid, signal.SIGSTOP)
    for _ in range(2):
        stub.clear()
        heart.beat()
        assert stub.healthy == 1
    # Nothing else is written.
    stub.clear()
    assert stub.memory.read_bytes() == before
    stub.process.kill()
    # Not waited for: it is a zombie, as with Triton.
    wait_until(lambda: not stub.about.alive, "the process is gone")
    heart.beat()
    assert stub.healthy == 0 and log == []


def test_a_stub_that_starts_later_is_found(make_stub: Callable[..., Stub], tmp_path: Path) -> None:
    heart = Heartbeat(stubs, pytest.fail)
    heart.beat()
    stub = make_stub()
    heart.beat()
    assert stub.healthy == 1


def test_a_stub_that_starts_long_after_its_memory_appeared_is_kept_by_the_watchdog(
    make_stub: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "_SEARCH_S", -1.0)
    stub, heart = make_stub(), Heartbeat(stubs, pytest.fail)
    heart.beat()
    assert stub.healthy == 0
    heart.keep(stubs())
    heart.beat()
    assert stub.healthy == 1
    heart.keep([])
    stub.clear()
    heart.beat()
    assert stub.healthy == 0


def test_the_heart_beats_on_after_a_failure(make_stub: Callable[..., Stub], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.001)
    log: list[str] = []
    failures = iter([RuntimeError("no thread"), OSError("no file")])

    def found() -> list[Process]:
        for failure in failures:
            raise failure
        if stub.healthy:
            raise SystemExit
        return stubs()

    stub = make_stub()
    stub.clear()
    beating = threading.Thread(target=Heartbeat(found, log.append)._run, daemon=True)
    beating.start()
    beating.join(30)
    assert stub.healthy and not beating.is_alive()
    assert log == ["the health flags of models could not be set: no thread"]


@pytest.mark.parametrize(
    ("offset", "options"),
    [(OFFSET, {"users": 0}), (OFFSET, {"users": 2**31}), (OFFSET, {"flags": b"\0\2\0\0"}), ("x", {}), (10**9, {})],
    ids=["no users", "too many users", "no booleans", "another argument", "beyond the end"],
)
def test_memory_that_looks_different_is_left_alone(
    make_stub: Callable[..., Stub], offset: object, options: dict[str, object]
) -> None:
    log: list[str] = []
    stub = make_stub(offset, **options)
    before = stub.memory.read_bytes()
    heart = Heartbeat(stubs, log.append)
    heart.beat()
    heart.beat()
    assert stub.memory.read_bytes() == before
    (line,) = log
    assert f"the health flag of process {stub.process.pid} is not known" in line


def test_a_region_is_a_name_and_no_path(make_stub: Callable[..., Stub]) -> None:
    stub = make_stub()
    with pytest.raises(ValueError, match="arguments"):
        Flag(stub.about, ["stub", "model.py", "../region", "1", "1", "1", "/lib", "0", "vit_0_0", "DEFAULT"])
