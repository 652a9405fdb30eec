# SPDX-License-Identifier: Apache-2.0
"""What API keys have used of their limits, in a file that all frontends of one machine map into memory."""

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.processes import Process, read_process, still_runs

PROCESSES = 64  # that may share a file
KEYS = 65_536  # that a file has room for; it is sparse
# The file consists of words of 8 bytes: the number of keys; the id and the start time of each process; and for each key
# the hash of its name, the tokens of its bucket, when they were counted, and the requests of each process.
_FIRST_KEY = 1 + 2 * PROCESSES
_TOKENS, _FILLED_AT, _REQUESTS = 4, 5, 6
_KEY = _REQUESTS + PROCESSES


class SharedFile:
    """The file of one server. A process that is killed leaves its requests in it until they stand in somebody's way.

    Raises OSError if it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = 8 * (_FIRST_KEY + _KEY * KEYS)
        os.ftruncate(self._file, size)
        memory = memoryview(mmap.mmap(self._file, size))
        self.words, self.numbers = memory.cast("q"), memory.cast("d")
        self._known: dict[bytes, int] = {}
        with self.locked():
            self.forget_dead()
            self.process = self._take_place()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def of(self, name: str) -> "SharedUse":
        """Return the use of the key of this name."""
        digest = hashlib.sha256(name.encode()).digest()
        with self.locked():
            for at in self._places(len(self._known), self.words[0]):
                self._known[self.words[at : at + _TOKENS].tobytes()] = at
            if digest not in self._known:
                if self.words[0] == KEYS:
                    raise OSError(f"more than {KEYS} API keys share a file")
                (at,) = self._places(self.words[0], self.words[0] + 1)
                self.words[at : at + _TOKENS] = memoryview(digest).cast("q")
                self.words[0] += 1
                self._known[digest] = at
        return SharedUse(self, self._known[digest])

    def forget_dead(self) -> None:
        """Drop the requests of processes that have died. Call it inside `locked`."""
        for process in range(PROCESSES):
            at = 1 + 2 * process
            pid, started = self.words[at], self.words[at + 1]
            if pid and not still_runs(Process(pid, "", "", 0, started)):
                for key in self._places(0, self.words[0]):
                    self.words[key + _REQUESTS + process] = 0
                self.words[at] = 0

    def _take_place(self) -> int:
        for process in range(PROCESSES):
            at = 1 + 2 * process
            if not self.words[at]:
                own = read_process(os.getpid())
                self.words[at], self.words[at + 1] = os.getpid(), own.started if own else 0
                return process
        raise OSError(f"more than {PROCESSES} frontends share a file")

    def _places(self, first: int, last: int) -> range:
        return range(_FIRST_KEY + _KEY * first, _FIRST_KEY + _KEY * last, _KEY)


class SharedUse:
    """The use of one key by all processes; see `quotas.Use`."""

    def __init__(self, file: SharedFile, at: int) -> None:
        self._file = file
        self._tokens, self._filled_at = at + _TOKENS, at + _FILLED_AT
        self._requests = slice(at + _REQUESTS, at + _KEY)
        self._own = at + _REQUESTS + file.process
        self.locked = file.locked

    @property
    def tokens(self) -> float:
        """Tokens of the bucket."""
        return self._file.numbers[self._tokens]

    @tokens.setter
    def tokens(self, tokens: float) -> None:
        self._file.numbers[self._tokens] = tokens

    @property
    def filled_at(self) -> float:
        """When they were counted, by the machine's monotonic clock, which all processes share."""
        return self._file.numbers[self._filled_at]

    @filled_at.setter
    def filled_at(self, time: float) -> None:
        self._file.numbers[self._filled_at] = time

    def in_flight(self, limit: int) -> int:
        """Count the requests in progress. Those of dead processes are looked for only if the limit is reached."""
        requests = sum(self._file.words[self._requests])
        if requests < limit:
            return requests
        self._file.forget_dead()
        return sum(self._file.words[self._requests])

    def add(self, requests: int) -> None:
        """Change the number of this process's requests in progress."""
        self._file.words[self._own] += requests
