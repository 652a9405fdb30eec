# SPDX-License-Identifier: Apache-2.0
"""Bytes that one process passes to another in memory: taken once, by a process beside it, and nothing stays."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common import shared_bytes
from common.shared_bytes import Handle, SharedBytes, joined, take

LARGE = np.arange(3_000_000, dtype=np.uint32)
PIECES = [memoryview(b"head"), memoryview(b""), memoryview(bytes(60)), LARGE.data]
# Models' processes have one parent, tritonserver.
OTHER = """
import hashlib, os, sys
from common.shared_bytes import Handle, take
os.getppid = lambda: PARENT
print(hashlib.sha256(take(Handle(*map(int, sys.argv[1:])))).hexdigest())
"""


def open_memory() -> int:
    """The shared memory that this process has open or mapped."""
    files = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    opened = sum(os.readlink(file).startswith("/memfd:") for file in files if file.is_symlink())
    return opened + Path("/proc/self/maps").read_text().count("/memfd:")


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[SharedBytes]:
    before = open_memory()
    monkeypatch.setattr(shared_bytes, "_KEPT_S", 0.2)
    monkeypatch.setattr(shared_bytes, "_PERIOD_S", 0.1)
    yield SharedBytes()
    deadline = time.monotonic() + 5
    while open_memory() > before:
        assert time.monotonic() < deadline, "memory is left"
        time.sleep(0.05)


def share(shared: SharedBytes) -> Handle:
    handle = shared.share(PIECES)
    assert handle is not None
    return handle


def test_there_and_back(shared: SharedBytes) -> None:
    handle = share(shared)
    received = take(handle)
    assert np.array_equal(received, joined(PIECES))
    assert received.ctypes.data % 64 == 0
    # The sender has closed it by now.
    time.sleep(5 * shared_bytes._PERIOD_S)
    assert np.array_equal(received[64:].view(np.uint32), LARGE)


def test_another_process_takes_them(shared: SharedBytes) -> None:
    script = OTHER.replace("PARENT", str(os.getppid()))
    given = subprocess.run(
        [sys.executable, "-c", script, *map(str, share(shared))], check=True, capture_output=True, text=True
    )
    assert given.stdout.strip() == hashlib.sha256(joined(PIECES).tobytes()).hexdigest()


def test_a_process_of_another_parent_does_not(shared: SharedBytes) -> None:
    handle = share(shared)
    script = OTHER.replace("PARENT", "os.getpid()")
    given = subprocess.run(
        [sys.executable, "-c", script, *map(str, handle)], check=False, capture_output=True, text=True
    )
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


def test_what_nobody_takes_expires(shared: SharedBytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_bytes, "EXPIRY_S", 0.1)
    handle = share(shared)
    time.sleep(4 * shared_bytes._PERIOD_S)
    with pytest.raises(LookupError):
        take(handle)
