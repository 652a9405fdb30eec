# SPDX-License-Identifier: Apache-2.0
"""The files in which processes share their metrics, kept apart from a full disk: prometheus_client's would not be.

Its files grow with the sets of labels. If one cannot, every set that is new raises from then on, and if the disk takes
the length but not the content, the process gets a SIGBUS. A metric must never fail a request.
"""

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from common.processes import read_process

_FIRST_SIZE = 2**16
# Bytes of an entry beside its key, at most.
_ENTRY = 32


class MetricFile(MmapedDict):
    """A file whose values wait in the process until there is room for them."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if not read_mode:
            with open(filename, "a+b") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    os.posix_fallocate(file.fileno(), 0, _FIRST_SIZE)
        super().__init__(filename, read_mode)  # type: ignore[no-untyped-call] # prometheus_client has no types here

    def read_value(self, key: str) -> Any:
        """Return a value and its time; 0 for a new one that finds no room."""
        try:
            return super().read_value(key)  # type: ignore[no-untyped-call] # as above
        except OSError:
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Write a value, which is the whole count: one that finds no room is written with the next change."""
        try:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call] # as above
        except OSError:
            return

    def _init_value(self, key: str) -> None:
        capacity = self._capacity
        try:
            if self._used + len(key.encode()) + _ENTRY > capacity:
                os.posix_fallocate(self._f.fileno(), 0, 2 * capacity)
            super()._init_value(key)  # type: ignore[no-untyped-call] # as above
        except OSError:
            # It is changed before the file is.
            self._capacity = capacity
            raise


def delete_dead_gauges(folder: Path) -> None:
    """Delete the gauges of processes that were killed; their counters stay."""
    for path in folder.glob("gauge_live*_*.db"):
        found = re.search(r"_(\d+)-(\d+)\.db$", path.name)
        if found and _started(int(found[1])) != int(found[2]):
            path.unlink(missing_ok=True)


def keep_metrics_from_failing() -> None:
    """Let prometheus_client use these files. Call it before the first metric is made."""
    values.MmapedDict = MetricFile  # type: ignore[attr-defined] # it has no public place for this
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        values.ValueClass = values.MultiProcessValue(_identity)  # type: ignore[no-untyped-call] # as above


def _identity() -> str:
    """This process in the names of its files: its id and its start.

    Ids are used again, also for threads: by the id alone the gauges of a killed process would be another one's.
    """
    return _named(os.getpid())


@lru_cache(maxsize=2)
def _named(pid: int) -> str:
    # Asked for at every change of a value.
    return f"{pid}-{_started(pid)}"


def _started(pid: int) -> int | None:
    """When the process of this id was started, None if there is none."""
    process = read_process(pid)
    return None if process is None else process.started
