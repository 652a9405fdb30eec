# SPDX-License-Identifier: Apache-2.0
"""Show an answer while it streams: rendered on a terminal, unchanged in a pipe."""

import re
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

# Control characters except line feed and tab: a model's text must not control the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FENCE = re.compile(r"^\s{0,3}(```|~~~)", re.MULTILINE)
_REFRESH_HZ = 8


class Writer(Protocol):
    """Shows the pieces of an answer as they come. `end` follows the last one, also after an interruption."""

    def reasoning(self, text: str) -> None:
        """Show a piece of the model's reasoning."""

    def content(self, text: str) -> None:
        """Show a piece of the answer."""

    def end(self) -> None:
        """Finish the answer's last line."""


def printable(text: str) -> str:
    """Remove the control characters that a terminal would obey."""
    return _CONTROL.sub("", text)


class PipeWriter:
    """Writes the answer byte for byte to `out`, and the reasoning to the terminal."""

    def __init__(self, out: TextIO, notes: Console) -> None:
        self._out = out
        self._notes = notes
        self._clean = out.isatty()
        self._thinking = False
        self._open = False

    def reasoning(self, text: str) -> None:
        self._notes.print(Text(printable(text), style="dim"), end="")
        self._thinking = True

    def content(self, text: str) -> None:
        self._end_reasoning()
        self._out.write(printable(text) if self._clean else text)
        self._out.flush()
        self._open = not text.endswith("\n")

    def end(self) -> None:
        self._end_reasoning()
        if self._open:
            self._out.write("\n")
            self._out.flush()
            self._open = False

    def _end_reasoning(self) -> None:
        if self._thinking:
            self._notes.print()
            self._thinking = False


class LiveWriter:
    """Renders Markdown block by block: complete blocks are printed once, and only the last block is redrawn.

    This way an answer may be longer than the terminal is high.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._block = ""
        self._thinking = False
        self._live: Live | None = None

    def reasoning(self, text: str) -> None:
        self._close()
        self._console.print(Text(printable(text), style="dim"), end="", soft_wrap=True)
        self._thinking = True

    def content(self, text: str) -> None:
        self._end_reasoning()
        self._block += printable(text)
        done, self._block = complete_blocks(self._block)
        if done:
            self._close()
            self._console.print(Markdown(done))
            # Each block is rendered as a document of its own, without the empty line that separates blocks.
            self._console.print()
        if self._block.strip():
            if self._live is None:
                self._live = Live(console=self._console, refresh_per_second=_REFRESH_HZ, transient=True)
                self._live.start()
            self._live.update(Markdown(self._block))

    def end(self) -> None:
        self._end_reasoning()
        self._close()
        if self._block.strip():
            self._console.print(Markdown(self._block))
        self._block = ""

    def _close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _end_reasoning(self) -> None:
        if self._thinking:
            self._console.print("\n")
            self._thinking = False


def complete_blocks(text: str) -> tuple[str, str]:
    """Split Markdown into complete blocks and the rest, after the last empty line outside a fence."""
    cut, start = 0, 0
    while (start := text.find("\n\n", start)) >= 0:
        start += 2
        # A list may continue after an empty line, so it is cut only before something else.
        if len(_FENCE.findall(text, 0, start)) % 2 == 0 and text[start : start + 1].strip(" -*+0123456789"):
            cut = start
    return text[:cut], text[cut:]
