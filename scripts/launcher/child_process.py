# SPDX-License-Identifier: Apache-2.0
"""A part of the stack as a child process in a session of its own, of which nothing outlives the launcher."""

import os
import signal
import subprocess  # nosec B404 # fixed programs, no shell
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from common.processes import is_resource_tracker, kill, session_members, shared_memory
from scripts.shared.parent_death import signal_when_parent_ends

_POLL_S = 0.05
# A killed process is gone only after its memory is freed.
_KILL_LIMIT_S = 10.0
_TRACKER_LIMIT_S = 2.0
_TAIL_BYTES = 256 * 1024


class ChildProcess:
    """A running part of the stack, whose output goes to a file, so that a busy launcher never blocks it.

    Create it in the main thread: the kernel ties the parent-death signal to the thread that forked.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log_path: Path,
        *,
        folder: Path | None = None,
        append: bool = False,
    ) -> None:
        """Start the process; raises OSError if that or its log is impossible.

        folder: its current directory, created if missing; the launcher's own by default.
        append: keep the log of an earlier process of this part and continue it; if that is impossible, go without one.
        """
        self.name = name
        self.log_path = log_path
        self._command = command
        self._environment = environment
        self._folder = folder
        self._memory: set[Path] = set()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with _open_log(log_path, append) as log:
            # Kept open, so that the log can be read though the file is removed or has another name by now.
            self._log = Path(log.name).open("rb")  # noqa: SIM115
            self._log_start = self._log_end = log.tell()
            self._process = subprocess.Popen(  # nosec B603 # fixed program, no shell
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(signal_when_parent_ends, signal.SIGTERM),
            )

    @property
    def pid(self) -> int:
        """Process id, and the id of the session that its children share."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """The exit status, negative for a signal as in subprocess; None while the process runs."""
        return self._process.poll()

    def restart(self) -> "ChildProcess":
        """Start the same part as a new process, after this one is gone."""
        return ChildProcess(
            self.name, self._command, self._environment, self.log_path, folder=self._folder, append=True
        )

    def lines(self, most: int = 400) -> list[str]:
        """The last lines that this process logged, oldest first."""
        size = self._log_size()
        begin = max(self._log_start, size - _TAIL_BYTES)
        text = os.pread(self._log.fileno(), max(0, size - begin), begin)
        return text.decode("utf-8", errors="replace").splitlines()[-most:]

    def terminate(self) -> None:
        """Send SIGTERM; returns at once."""
        if self._process.poll() is None:
            self._process.terminate()

    def new_lines(self) -> list[str]:
        """The complete lines that it logged since the last call."""
        text = os.pread(self._log.fileno(), max(0, self._log_size() - self._log_end), self._log_end)
        complete, newline, _ = text.rpartition(b"\n")
        self._log_end += len(complete + newline)
        return complete.decode("utf-8", errors="replace").splitlines()

    def _log_size(self) -> int:
        """The size of the log, which begins again if somebody has cut it off, as log rotation does."""
        size = os.fstat(self._log.fileno()).st_size
        if size < self._log_end:
            self._log_start = self._log_end = 0
        return size

    def record_shared_memory(self) -> None:
        """Record the shared memory that its processes have mapped, so that `stop` can remove it.

        A killed process cannot remove it, and an engine has hundreds of megabytes.
        """
        self._memory.update(*(shared_memory(pid) for pid in self.session()))

    def stop(self, grace_s: float, hurry: Callable[[], bool] = lambda: False) -> None:
        """Send SIGTERM to the process, which ends its children; after `grace_s` or in a hurry, kill its session."""
        self.record_shared_memory()
        self.terminate()
        end = time.monotonic() + grace_s
        while self._process.poll() is None and time.monotonic() < end and not hurry():
            time.sleep(_POLL_S)
        # Even if it ended by itself: an engine's workers must not stay behind.
        begun = time.monotonic()
        while (left := self.session()) and time.monotonic() < begun + _KILL_LIMIT_S:
            for pid in left:
                # Python's resource tracker removes what the others leave, and ends after the last of them.
                if time.monotonic() > begun + _TRACKER_LIMIT_S or not is_resource_tracker(pid):
                    kill(pid)
            time.sleep(_POLL_S)
        self._process.wait()
        for path in self._memory:
            path.unlink(missing_ok=True)

    def session(self) -> list[int]:
        """Ids of all living processes of its session, zombies not counted."""
        return session_members(self.pid)


def _open_log(path: Path, append: bool) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not append:
            path.write_bytes(b"")
        # In append mode, because the part's children write to the same file.
        return path.open("ab")
    except OSError:
        if not append:
            raise
        return Path(os.devnull).open("ab")
