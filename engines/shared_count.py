# SPDX-License-Identifier: Apache-2.0
"""A count that several processes keep together."""

import mmap
import os

_BYTES = 8


class SharedCount:
    """The sum of one number of each process, in memory that they share.

    path: of another process's object; None creates the memory. It has no name in the file system, and ends with the
    processes. processes: how many there may be.
    """

    def __init__(self, processes: int, index: int, path: str | None = None) -> None:
        self._file = os.memfd_create("triton_chat_count") if path is None else os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if path is None:
            os.ftruncate(self._file, processes * _BYTES)
        self._memory = mmap.mmap(self._file, processes * _BYTES)
        self._numbers = memoryview(self._memory).cast("q")
        self._index = index

    @property
    def path(self) -> str:
        """Where other processes of this user find the memory, as long as this one runs."""
        return f"/proc/{os.getpid()}/fd/{self._file}"

    def set(self, number: int) -> None:
        """Set the number of this process."""
        self._numbers[self._index] = number

    def total(self) -> int:
        """The sum of all numbers."""
        return sum(self._numbers)

    def close(self) -> None:
        """Set the number to 0, and let go of the memory."""
        self.set(0)
        self._numbers.release()
        self._memory.close()
        os.close(self._file)
