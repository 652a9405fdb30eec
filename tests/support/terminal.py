# SPDX-License-Identifier: Apache-2.0
"""Run a program in a pseudo-terminal: type keys and read its output as text."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

CTRL_C, CTRL_D = "\x03", "\x04"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\r\b]")


class Terminal:
    """A running program and its output so far."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._output = b""
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def text(self) -> str:
        """The output without control sequences; text that was drawn again is in it twice."""
        return _ESCAPES.sub("", self._output.decode(errors="replace"))

    @property
    def raw(self) -> str:
        """The output with its control sequences."""
        return self._output.decode(errors="replace")

    def type(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, times: int = 1, seconds: float = 60.0) -> None:
        """Wait until the text is in the output that many times, or fail with the output."""
        end = time.monotonic() + seconds
        while self.text.count(text) < times:
            assert time.monotonic() < end, f"{text!r} was not printed {times} times:\n{self.text}"
            time.sleep(0.05)

    def wait_for_prompt(self, prompt: str = ">", seconds: float = 60.0) -> None:
        """Wait until the last thing in the output is the prompt: a key such as Ctrl-D is lost if nobody reads."""
        end = time.monotonic() + seconds
        while not self.text.rstrip().endswith(prompt):
            assert time.monotonic() < end, f"there is no prompt:\n{self.text}"
            time.sleep(0.05)

    def _read(self) -> None:
        while True:
            try:
                self._output += os.read(self._master, 65536)
            except OSError:  # The program has ended.
                return


@contextmanager
def terminal(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Start a program in a terminal that sends the signals of Ctrl-C; it is killed at the end if it still runs."""
    master, slave = pty.openpty()
    # Wide enough that what is typed is not broken into lines.
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 250, 0, 0))

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=dict(environment) | {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)
