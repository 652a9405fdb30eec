# SPDX-License-Identifier: Apache-2.0
"""Bytes that one process passes to another in memory: taken once, by a process beside it, and nothing stays."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EACCES, ENOMEM
from pathlib import Path

import numpy as np
import pytest

from common import shared_bytes
from common.shared_bytes import EXPIRY_S, Handle, SharedBytes, answer_probes, joined, take

LARGE = np.arange(3_000_000, dtype=np.uint32)
PIECES = [memoryview(b"head"), memoryview(b""), memoryview(bytes(60)), LARGE.data]
# Models' processes have one parent, tritonserver.
OTHER = """
import hashlib, os, sys
from common.shared_bytes import Handle, take
os.getppid = lambda: PARENT
print(hashlib.sha256(take(Handle(*map(int, sys.argv[1:])))).hexdigest())
"""

# A receiver that starts.
STARTS = """
import os
from common.shared_bytes import answer_probes
os.getppid = lambda: PARENT
answer_probes()
"""


def open_memory() -> int:
    """The shared memory that this process has open or mapped."""
    opened = 0
    for name in os.listdir("/proc/self/fd"):
        # Other threads close files.
        with suppress(FileNotFoundError):
            opened += os.readlink(f"/proc/self/fd/{name}").startswith("/memfd:")
    return opened + Path("/proc/self/maps").read_text().count("/memfd:")


def run(script: str, parent: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process that takes `parent` for the id of its parent."""
    line = [sys.executable, "-c", script.replace("PARENT", parent), *map(str, words)]
    return subprocess.run(line, check=False, capture_output=True, text=True)


class Clock:
    """Time that passes when a test says so, and a little each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


def wait_until(done: Callable[[], bool], failure: str) -> None:
    """For what another thread does."""
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline, failure
        time.sleep(0.01)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedBytes]:
    monkeypatch.setattr(shared_bytes, "_PERIOD_S", 0.01)
    shared = SharedBytes(clock=clock)
    before = open_memory()
    yield shared
    clock.now += EXPIRY_S
    wait_until(lambda: open_memory() <= before, "memory is left")


def share(shared: SharedBytes) -> Handle:
    handle = shared.share(PIECES)
    assert handle is not None
    return handle


def test_there_and_back(shared: SharedBytes, clock: Clock) -> None:
    handle = share(shared)
    received = take(handle)
    assert np.array_equal(received, joined(PIECES))
    assert received.ctypes.data % 64 == 0
    clock.now += shared_bytes._KEPT_S
    wait_until(lambda: not shared._segments, "the sender keeps it")
    assert np.array_equal(received[64:].view(np.uint32), LARGE)


def test_another_process_takes_them(shared: SharedBytes) -> None:
    given = run(OTHER, str(os.getppid()), *share(shared))
    assert given.stdout.strip() == hashlib.sha256(joined(PIECES).tobytes()).hexdigest()


def test_a_process_of_another_parent_does_not(shared: SharedBytes) -> None:
    handle = share(shared)
    given = run(OTHER, "os.getpid()", *handle)
    assert "LookupError: no shared bytes" in given.stderr
    take(handle)


def test_they_are_taken_once(shared: SharedBytes) -> None:
    handle = share(shared)
    take(handle)
    with pytest.raises(LookupError):
        take(handle)


@pytest.mark.parametrize(
    "change", [{"key": 1}, {"size": 2**40}, {"size": -64}, {"file": 0}, {"file": -1}, {"process": 1}, {"process": -1}]
)
def test_a_wrong_handle(shared: SharedBytes, change: dict[str, int]) -> None:
    handle = share(shared)
    with pytest.raises(LookupError):
        take(handle._replace(**change))
    take(handle)


def test_no_other_file_is_opened(shared: SharedBytes, tmp_path: Path) -> None:
    handle = share(shared)
    with (tmp_path / "file").open("wb+") as file:
        file.write(os.pread(handle.file, 64 + handle.size, 0))
        file.flush()
        with pytest.raises(LookupError, match="no shared bytes"):
            take(handle._replace(file=file.fileno()))
    take(handle)


def test_without_room_nothing_is_shared(shared: SharedBytes) -> None:
    take(share(shared))
    shared._max_bytes = 100
    one = shared.share([memoryview(bytes(60))])
    assert one is not None and shared.share([memoryview(bytes(60))]) is None
    take(one)
    two = shared.share([memoryview(bytes(60))])
    assert two is not None
    take(two)


def test_without_memory_nothing_is_shared(shared: SharedBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        assert shared.share(PIECES) is None
    take(share(shared))


def test_memory_is_used_again_when_no_view_is_left(shared: SharedBytes) -> None:
    first = share(shared)
    view = take(first)[1000:2000]
    second = share(shared)
    assert second.file != first.file
    before = view.copy()
    take(second)
    third = share(shared)
    assert (third.file, third.key != second.key) == (second.file, True)
    assert np.array_equal(view, before)
    del view
    fourth = share(shared)
    assert fourth.file == first.file
    assert np.array_equal(take(third), joined(PIECES)) and np.array_equal(take(fourth), joined(PIECES))


def test_less_needs_no_large_memory(shared: SharedBytes) -> None:
    large = share(shared)
    take(large)
    small = shared.share([memoryview(b"small")])
    assert small is not None and small.file != large.file
    assert take(small).tobytes() == b"small"


def test_what_is_kept_has_a_limit(shared: SharedBytes) -> None:
    shared._kept_bytes = 25_000_000
    views = [take(share(shared)) for _ in range(5)]
    assert len(shared._segments) <= 3
    assert all(np.array_equal(view, joined(PIECES)) for view in views)


def test_what_nobody_takes_expires(shared: SharedBytes, clock: Clock) -> None:
    handle = share(shared)
    clock.now += EXPIRY_S
    wait_until(lambda: not shared._segments, "the sender keeps it")
    with pytest.raises(LookupError):
        take(handle)


def test_one_is_tried_until_receivers_can_take_it(shared: SharedBytes, clock: Clock) -> None:
    def deny(path: str) -> str:
        raise PermissionError(EACCES, "no", path)

    for _ in range(2):
        handle = share(shared)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(os, "readlink", deny)
            with pytest.raises(LookupError, match="EACCES"):
                take(handle)
        assert not shared.is_trusted() and shared.share(PIECES) is None
        clock.now += EXPIRY_S
    take(share(shared))
    several = [share(shared), share(shared)]
    assert shared.is_trusted()
    take(several[1])
    clock.now += EXPIRY_S
    # The last one was taken, so the one before it was lost on its way.
    handle = share(shared)
    assert shared.is_trusted()
    clock.now += EXPIRY_S
    take(share(shared))
    assert not shared.is_trusted()
    with pytest.raises(LookupError):
        take(handle)


@pytest.fixture(autouse=True)
def no_process_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_bytes, "_answered", set())


def test_a_receiver_that_starts_is_trusted_before_the_first_request(shared: SharedBytes) -> None:
    assert not shared.is_trusted()
    run(STARTS, "os.getpid()").check_returncode()
    assert not shared.is_trusted(), "a process of another parent"
    run(STARTS, str(os.getppid())).check_returncode()
    assert shared.is_trusted()
    for handle in [share(shared), share(shared)]:
        take(handle)


def test_senders_that_start_later_wait_for_one_request_together() -> None:
    with pytest.MonkeyPatch.context() as patched:
        # The receiver starts while they load: they have no probes yet.
        patched.setattr(os, "readlink", lambda path: "/dev/null")
        answer_probes()
    shared, other = SharedBytes(), SharedBytes()
    assert not shared.is_trusted()
    take(share(shared))
    assert other.is_trusted()
    later = SharedBytes()
    take(share(shared))
    assert not later.is_trusted(), "a sender's process is looked into once"


def test_a_receiver_that_may_not_read_other_processes_is_not_trusted(
    shared: SharedBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: str) -> str:
        raise PermissionError(EACCES, "no", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "readlink", deny)
        answer_probes()
    assert not shared.is_trusted()
    answer_probes()
    assert shared.is_trusted()


def test_a_marked_probe_does_not_outweigh_what_was_not_taken(shared: SharedBytes, clock: Clock) -> None:
    answer_probes()
    share(shared)
    clock.now += EXPIRY_S
    wait_until(lambda: not shared._segments, "the sender keeps it")
    assert not shared.is_trusted()


def test_a_receiver_without_memory_says_so_at_once(shared: SharedBytes) -> None:
    def full(*_: object) -> None:
        raise OSError(ENOMEM, "no memory")

    take(share(shared))
    handle = share(shared)
    assert shared.is_trusted()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shared_bytes, "_Mapping", full)
        with pytest.raises(LookupError, match="ENOMEM"):
            take(handle)
    file = handle.file
    wait_until(lambda: all(one.file != file for one in shared._segments), "the sender keeps it")
    assert not shared.is_trusted()
    take(share(shared))
    take(share(shared))
    assert shared.is_trusted()
