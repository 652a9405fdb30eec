# SPDX-License-Identifier: Apache-2.0
"""How an answer is shown while it streams: rendered on a terminal, as it is in a pipe."""

import re
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

# Control characters but line feed and tab: a model's words must not steer the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FENCE = re.compile(r"^\s{0,3}(```|~~~)", re.MULTILINE)
_REFRESH_HZ = 8


class Writer(Protocol):
    """`reasoning` and `content` get pieces as they come; `end` follows the last one, also after an interruption."""

    def reasoning(self, text: str) -> None:
        """Show a piece of the model's thoughts."""

    def content(self, text: str) -> None:
        """Show a piece of the answer."""

    def end(self) -> None:
        """Finish the answer's last line."""


def harmless(text: str) -> str:
    """The text without control characters that a terminal would obey."""
    return _CONTROL.sub("", text)


class PipeWriter:
    """The answer byte for byte on `out`; the thoughts on the terminal beside it."""

    def __init__(self, out: TextIO, notes: Console) -> None:
        self._out = out
        self._notes = notes
        self._clean = out.isatty()
        self._thinking = False
        self._open = False

    def reasoning(self, text: str) -> None:
        self._notes.print(Text(harmless(text), style="dim"), end="")
        self._thinking = True

    def content(self, text: str) -> None:
        self._end_thoughts()
        self._out.write(harmless(text) if self._clean else text)
        self._out.flush()
        self._open = not text.endswith("\n")

    def end(self) -> None:
        self._end_thoughts()
        if self._open:
            self._out.write("\n")
            self._out.flush()
            self._open = False

    def _end_thoughts(self) -> None:
        if self._thinking:
            self._notes.print()
            self._thinking = False


class LiveWriter:
    """Markdown, block by block: what is finished is printed for good, only the last block is drawn anew.

    So an answer may be longer than the terminal is high.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._block = ""
        self._thinking = False
        self._live: Live | None = None

    def reasoning(self, text: str) -> None:
        self._close()
        self._console.print(Text(harmless(text), style="dim"), end="", soft_wrap=True)
        self._thinking = True

    def content(self, text: str) -> None:
        self._end_thoughts()
        self._block += harmless(text)
        done, self._block = finished(self._block)
        if done:
            self._close()
            self._console.print(Markdown(done))
            # Markdown drops the empty line between blocks, which here are documents of their own.
            self._console.print()
        if self._block.strip():
            if self._live is None:
                self._live = Live(console=self._console, refresh_per_second=_REFRESH_HZ, transient=True)
                self._live.start()
            self._live.update(Markdown(self._block))

    def end(self) -> None:
        self._end_thoughts()
        self._close()
        if self._block.strip():
            self._console.print(Markdown(self._block))
        self._block = ""

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _end_thoughts(self) -> None:
        if self._thinking:
            self._console.print("\n")
            self._thinking = False


def finished(text: str) -> tuple[str, str]:
    """(whole Markdown blocks, the rest): cut behind the last empty line that stands in no fence."""
    cut, start = 0, 0
    while (start := text.find("\n\n", start)) >= 0:
        start += 2
        # A list may go on after an empty line, so it is cut where something else begins.
        if len(_FENCE.findall(text, 0, start)) % 2 == 0 and text[start : start + 1].strip(" -*+0123456789"):
            cut = start
    return text[:cut], text[cut:]
