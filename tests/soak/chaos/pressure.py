# SPDX-License-Identifier: Apache-2.0
"""Take memory, shared memory or a disk away for a while. Each is a context manager that gives it back."""

import fcntl
import os
import subprocess  # nosec B404 # fixed program, no shell
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # nosec B108 # where Triton's Python backend puts its regions, fixed
# ioctl(2) FIFREEZE and FITHAW of Linux (include/uapi/linux/fs.h).
_FREEZE, _THAW = 0xC0045877, 0xC0045878
# The limit, the use and the statistics of a memory cgroup, version 2, then version 1.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
# Takes memory, tells so, and waits. The kernel kills it before any other process if there is too little left.
_HOG = """
import sys
open("/proc/self/oom_score_adj", "w").write("1000")
taken = bytearray(int(sys.argv[1]))
for at in range(0, len(taken), 4096): taken[at] = 1
print("taken", flush=True)
sys.stdin.read()
"""


def free_memory() -> int:
    """Return the bytes that processes here can still take, within the limit of their cgroup. Page cache counts as free."""
    free = int(psutil.virtual_memory().available)
    for limit, used, statistics in _CGROUPS:
        if Path(limit).is_file() and (bound := Path(limit).read_text().strip()) != "max":
            stat = dict(line.split() for line in Path(statistics).read_text().splitlines())
            cache = sum(int(stat.get(f"total_{one}", stat.get(one, 0))) for one in ("active_file", "inactive_file"))
            free = min(free, int(bound) - int(Path(used).read_text()) + cache)
    return max(0, free)


@contextmanager
def little_memory(left: int) -> Iterator[None]:
    """Take all memory but `left` bytes, within the limit of the cgroup that this process is in."""
    command = [sys.executable, "-I", "-c", _HOG, str(max(0, free_memory() - left))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:  # nosec B603 # fixed program
        try:
            assert hog.stdout is not None
            # Ends at once if the kernel has killed it.
            hog.stdout.readline()
            yield
        finally:
            hog.kill()


@contextmanager
def full_shared_memory(left: int) -> Iterator[None]:
    """Fill /dev/shm but for `left` bytes."""
    path = SHARED_MEMORY / f"triton-chat-soak-{os.getpid()}"
    try:
        with path.open("wb") as file:
            size = max(1, psutil.disk_usage(str(SHARED_MEMORY)).free - left)
            os.posix_fallocate(file.fileno(), 0, size)
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def frozen_disk(folder: Path) -> Iterator[None]:
    """Let every write to the file system of a folder wait. Needs root, and a file system that nothing else needs."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(descriptor, _THAW, 0)
    finally:
        os.close(descriptor)


@contextmanager
def limited(process: psutil.Process, resource: int, bound: int) -> Iterator[None]:
    """Lower one soft limit (psutil.RLIMIT_...) of a process."""
    before = process.rlimit(resource)
    process.rlimit(resource, (bound, before[1]))
    try:
        yield
    finally:
        if process.is_running():
            process.rlimit(resource, before)


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Let a process stand still."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()
