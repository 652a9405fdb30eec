# SPDX-License-Identifier: Apache-2.0
"""Pass bytes from one model's process to another in memory that both map, so that Triton need not copy them.

The memory has no name in the file system. It ends with the last process that has it open or mapped, however that ends.
Only processes of the same user and the same tritonserver can take it. The sender uses it again when the receiver no
longer does: for a picture of 11.5 MB new memory took 6.4 ms of CPU, and to write into what is there 1.2.

Whether receivers can take it, a sender knows before the first request: each has a small probe, which receivers mark.
"""

import math
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import errorcode
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.processes import children, read_process

# In each process, of the memory that no receiver has taken yet: more goes another way.
MAX_BYTES = 2**28
# In each process, of the memory that was taken and is kept to be used again.
KEPT_BYTES = 2**26
_KEPT_S = 10.0
# The receiver takes the memory of a request within milliseconds. A process that stands still longer is killed
# (python_backend/watchdog.py).
EXPIRY_S = 60.0
_PERIOD_S = 1.0
_NAME = "triton_chat_bytes"
_PROBE_NAME = "triton_chat_probe"
# Before the bytes: the key, and who has them. As long as the alignment of tensors.
_HEADER_BYTES = 64
_HEADER = struct.Struct("<qB")
_STATE = 8
_PASSED, _TAKEN, _FREE, _FAILED = range(4)


class Handle(NamedTuple):
    """Where a receiver finds bytes: a file of a process, and their number. key: in the memory too, hard to guess."""

    process: int
    file: int
    size: int
    key: int


class SharedBytes:
    """The memory that this process shares; for any number of threads.

    max_bytes: that no receiver has taken yet. kept_bytes: to be used again. clock: in seconds.
    On some systems no receiver can ever take it: see `is_trusted`.
    """

    def __init__(
        self, max_bytes: int = MAX_BYTES, kept_bytes: int = KEPT_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes, self._kept_bytes, self._clock = max_bytes, kept_bytes, clock
        self._trusted, self._judged_by = False, -math.inf
        self._probe = _Probe()
        # The one used last is at the end.
        self._segments: list[_Segment] = []
        self._lock = threading.Lock()
        self._filled = threading.Event()
        self._thread: threading.Thread | None = None

    def is_trusted(self) -> bool:
        """Whether receivers can take the memory: one has marked the probe, or has taken what was shared last.

        Until then, and after one did not, the bytes belong on another way as well.
        """
        if self._judged_by == -math.inf:
            return self._probe.is_marked()
        return self._trusted

    def share(self, pieces: Sequence[memoryview]) -> Handle | None:
        """Copy the pieces, one after the other, to where a receiver can take them.

        Returns None if there is no room, or while nobody has taken the first that were shared.
        """
        size = sum(piece.nbytes for piece in pieces)
        with self._lock:
            self._close_old()
            waiting = sum(one.capacity for one in self._segments if one.state == _PASSED)
            if waiting + size > self._max_bytes or (waiting and not self.is_trusted()):
                return None
            segment = self._room(size)
            if segment is None:
                return None
            self._segments.append(segment)
            key = segment.fill(pieces, self._clock())
            if self._thread is None:
                self._thread = threading.Thread(target=self._close_later, name=_NAME, daemon=True)
                self._thread.start()
        self._filled.set()
        return Handle(os.getpid(), segment.file, size, key)

    def _room(self, size: int) -> "_Segment | None":
        """A segment for bytes of this size, out of the list; None if the system has no memory."""
        free = [one for one in self._segments if one.state == _FREE and size <= one.capacity <= 2 * size]
        if free:
            segment = min(free, key=lambda one: one.capacity)
            self._segments.remove(segment)
            return segment
        try:
            return _Segment(size)
        except OSError:
            return None

    def _close_later(self) -> None:
        """Close what is not used again while nothing is shared."""
        while self._filled.wait():
            time.sleep(_PERIOD_S)
            with self._lock:
                self._close_old()
                if not self._segments:
                    self._filled.clear()

    def _close_old(self) -> None:
        """Close what nobody has taken for too long, and what is not to be kept. A receiver keeps what it has taken."""
        now, kept, left = self._clock(), 0, []
        for segment in reversed(self._segments):
            age, state = now - segment.filled_at, segment.state
            if state == _PASSED:
                stays = age < EXPIRY_S
            else:
                kept += segment.capacity
                stays = state != _FAILED and age < _KEPT_S and kept <= self._kept_bytes
            taken = state in (_TAKEN, _FREE)
            # The last one filled of which it is known.
            if (taken or not stays) and segment.filled_at > self._judged_by:
                self._trusted, self._judged_by = taken, segment.filled_at
            if stays:
                left.append(segment)
            else:
                segment.close()
        self._segments = left[::-1]


class _Segment:
    """Memory for bytes, mapped in this process."""

    def __init__(self, capacity: int) -> None:
        """Take it from the system; raises OSError if there is none."""
        self.capacity = capacity
        self.file = os.memfd_create(_NAME)
        try:
            # Without it, a lack of memory would kill the process when it writes.
            os.posix_fallocate(self.file, 0, _HEADER_BYTES + capacity)
            self._memory = mmap.mmap(self.file, _HEADER_BYTES + capacity)
        except OSError:
            os.close(self.file)
            raise

    @property
    def state(self) -> int:
        """Who has the bytes: a number that the receiver changes."""
        return self._memory[_STATE]

    def fill(self, pieces: Sequence[memoryview], now: float) -> int:
        """Write the bytes; returns their key."""
        key, start = secrets.randbits(63), _HEADER_BYTES
        self.filled_at = now
        for piece in pieces:
            self._memory[start : start + piece.nbytes] = piece.cast("B")
            start += piece.nbytes
        _HEADER.pack_into(self._memory, 0, key, _PASSED)
        return key

    def close(self) -> None:
        self._memory.close()
        os.close(self.file)


class _Probe:
    """One byte of memory that receivers mark, for as long as this object."""

    def __init__(self) -> None:
        try:
            self._file: int | None = os.memfd_create(_PROBE_NAME)
        except OSError:  # Then nothing can be shared either.
            self._file = None

    def is_marked(self) -> bool:
        return self._file is not None and os.pread(self._file, 1, 0) == bytes([_TAKEN])

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)


class _Mapping(mmap.mmap):
    """A receiver's mapping, which frees the memory for its sender when no array or view of it is left."""

    def __del__(self) -> None:
        self[_STATE] = _FREE


def joined(pieces: Sequence[memoryview]) -> NDArray[np.uint8]:
    """The pieces one after the other, in an array of this process."""
    return np.concatenate([np.frombuffer(piece, np.uint8) for piece in pieces])


def take(handle: Handle) -> NDArray[np.uint8]:
    """Map the bytes of a handle, which can be taken once. They stay as long as the array and its views.

    Raises LookupError if they are not there (taken already, expired, or never shared by a process beside this one), or
    if the system does not let this process have them.
    """
    process = read_process(handle.process)
    # A client of Triton could write any handle.
    if process is None or process.parent != os.getppid():
        raise LookupError("no shared bytes")
    if (process.pid, process.started) not in _answered:
        answer_probes()
    try:
        memory = _map(handle)
    except OSError as error:
        raise LookupError(f"shared bytes cannot be read: {errorcode.get(error.errno or 0, 'an error')}") from error
    memory[_STATE] = _TAKEN
    return np.frombuffer(memory, np.uint8, handle.size, _HEADER_BYTES)


# Processes whose probes were found: id and start. Others may still be loading, and make theirs later.
_answered: set[tuple[int, int]] = set()


def answer_probes() -> None:
    """Mark the probes of all processes beside this one, so that they know before a request that it can take memory.

    To be called by a receiver when it starts. `take` does it for senders whose probe was not there then.
    """
    beside = {(process.pid, process.started) for process in children(os.getppid())}
    _answered.intersection_update(beside)
    for process in beside:
        # It may end meanwhile, or not be this user's.
        with suppress(OSError):
            if any([_mark(file) for file in Path(f"/proc/{process[0]}/fd").iterdir()]):
                _answered.add(process)


def _mark(file: Path) -> bool:
    """Mark a probe if the open file of a process is one; opened as the memory of bytes is. Returns whether it was."""
    with suppress(OSError):
        if os.readlink(file).startswith(f"/memfd:{_PROBE_NAME} "):
            probe = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            try:
                return os.pwrite(probe, bytes([_TAKEN]), 0) == 1
            finally:
                os.close(probe)
    return False


def _map(handle: Handle) -> _Mapping:
    """Map the memory; raises OSError, or LookupError if it is not the handle's."""
    path = f"/proc/{handle.process}/fd/{handle.file}"
    if not os.readlink(path).startswith(f"/memfd:{_NAME} "):
        raise LookupError("no shared bytes")
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        header, length = os.pread(file, _HEADER.size, 0), _HEADER_BYTES + handle.size
        if handle.size <= 0 or os.fstat(file).st_size < length or header != _HEADER.pack(handle.key, _PASSED):
            raise LookupError("other shared bytes")
        try:
            return _Mapping(file, length)
        except OSError:
            # Its sender need not wait.
            os.pwrite(file, bytes([_FAILED]), _STATE)
            raise
    finally:
        os.close(file)
