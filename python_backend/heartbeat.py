# SPDX-License-Identifier: Apache-2.0
"""Keeps Triton from giving up the process of a Python model that stands still for some seconds.

While Triton waits for such a process, a stub, it looks once a second at a flag in the memory that they share, which a
thread of the stub sets three times a second. A stub that is stopped, or gets no processor, for a second is taken for
dead: Triton frees what it shared with it, although it lives. When it goes on it works on freed memory, which ends
tritonserver (`boost::interprocess::lock_exception`) or could give one request the answer of another. So somebody else
sets the flag as well, as long as the process lives. (python_backend r24.10: src/stub_launcher.cc lines 728 to 776,
src/pb_stub.cc line 2131, src/python_be.cc line 1342; the same up to r26.07.)
"""

import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from common.processes import Process, command_line, still_runs

# Much shorter than Triton's second, so that this process may be late too.
BEAT_S = 0.1
# A file appears here for each stub, before it starts.
SHARED_MEMORY = Path("/dev/shm")  # nosec B108 # where Triton's Python backend puts it, fixed
# How long after that stubs are looked for more often than by the watchdog: each is started through a shell.
_SEARCH_S = 5.0
# It reads the whole process table.
_SEARCH_PERIOD_S = 0.25
# The stub's arguments: model.py, region, sizes, parent, library folder, offset of the flags in the region, ...
_REGION, _OFFSET, _ARGUMENTS = 2, 7, 10
# In front of the flags is the count of their users (struct AllocatedShmOwnership, 16 bytes).
_USERS = struct.Struct("<I12x")
_MOST_USERS = 1000
# The first is the stub's health, and all are booleans (struct IPCControlShm).
_FLAGS = struct.Struct("<4B")


class Flag:
    """The health flag of one stub. Raises ValueError if its memory does not look as this Triton's does."""

    def __init__(self, stub: Process, words: list[str]) -> None:
        self.stub = stub
        if len(words) < _ARGUMENTS or not words[_OFFSET].isdecimal() or "/" in words[_REGION]:
            raise ValueError(f"arguments {words}")
        users_at = int(words[_OFFSET])
        start = users_at - users_at % mmap.ALLOCATIONGRANULARITY
        file = os.open(SHARED_MEMORY / words[_REGION], os.O_RDWR | os.O_CLOEXEC)
        try:
            self._memory = mmap.mmap(file, 2 * mmap.ALLOCATIONGRANULARITY, offset=start)
        finally:
            os.close(file)
        self._at = users_at - start + _USERS.size
        (users,) = _USERS.unpack_from(self._memory, users_at - start)
        flags = _FLAGS.unpack_from(self._memory, self._at)
        if not 0 < users < _MOST_USERS or any(flag > 1 for flag in flags):
            self.close()
            raise ValueError(f"{users} users, flags {flags}")

    def set(self) -> None:
        """Say that the stub is healthy, if it lives."""
        if still_runs(self.stub):
            self._memory[self._at] = 1

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


class Heartbeat:
    """Sets the flags of all stubs of one tritonserver. children: its processes now. log: prints a line."""

    def __init__(self, children: Callable[[], Iterable[Process]], log: Callable[[str], None]) -> None:
        self._children = children
        self._log = log
        self._flags: dict[Process, Flag | None] = {}
        self._lock = threading.Lock()
        self._changed = -1
        self._search_at = self._search_until = 0.0

    def start(self) -> None:
        """Begin, on a thread that ends with the process."""
        threading.Thread(target=self._run, name="heartbeat", daemon=True).start()

    def beat(self) -> None:
        """Set the flags, and look for new stubs if one may just be starting."""
        changed, now = SHARED_MEMORY.stat().st_mtime_ns, time.monotonic()
        if changed != self._changed:
            self._changed, self._search_until = changed, now + _SEARCH_S
        if self._search_at <= now < self._search_until:
            self._search_at = now + _SEARCH_PERIOD_S
            self.keep(self._children())
        with self._lock:
            for flag in self._flags.values():
                if flag is not None:
                    flag.set()

    def keep(self, children: Iterable[Process]) -> None:
        """Keep the flags of the stubs among these children of tritonserver, and no others; on any thread."""
        with self._lock:
            self._keep(children)

    def _keep(self, children: Iterable[Process]) -> None:
        found = {_identity(stub): stub for stub in children if stub.is_stub and stub.alive}
        for gone in [stub for stub in self._flags if stub not in found]:
            if (flag := self._flags.pop(gone)) is not None:
                flag.close()
        for identity, stub in found.items():
            if identity in self._flags:
                continue
            words = command_line(stub.pid)
            try:
                self._flags[identity] = Flag(stub, words)
            except FileNotFoundError:
                # It is ending, or its region has another place.
                continue
            except (OSError, ValueError) as error:
                # Of a Triton that this does not know; without the flag it behaves as ever. With no arguments it is not
                # a model's process, but Triton's test whether it could start one.
                if len(words) > 1:
                    self._log(f"the health flag of process {stub.pid} is not known ({error}): Triton may give it up")
                    self._flags[identity] = None

    def _run(self) -> None:
        failed = False
        while True:
            try:
                self.beat()
            except Exception as error:
                # Once, as it comes ten times a second.
                if not failed:
                    self._log(f"the health flags of models could not be set: {error}")
                failed = True
            time.sleep(BEAT_S)


def _identity(stub: Process) -> Process:
    """What stays the same about a process."""
    return stub._replace(state="", parent=0)
