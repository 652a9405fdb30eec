# SPDX-License-Identifier: Apache-2.0
"""Parses reasoning at the beginning of an answer: `<think>\\n...\\n</think>\\n\\n...`."""

import re
from collections.abc import Callable

from common.markers import MarkerScanner
from families.parsers.events import ContentDelta, Event, ReasoningDelta

_SPACE = re.compile(r"\s*")
_NEWLINES = "\r\n"


class ReasoningParser:
    """Separates the reasoning at the beginning of an answer from the content after it.

    The opening tag counts only at the beginning of the answer, after whitespace at most; later it is text. The first
    closing tag ends the reasoning; an unfinished block stays reasoning. Line ends directly after the opening tag,
    before the closing tag and after it belong to the markup and are dropped, as in the families' templates.

    starts_open: the prompt ends with the opening tag, so the answer begins inside the reasoning (a repeated opening
        tag is dropped).
    verbatim: keep tags and line ends; the block's events hold every character of it.
    interrupts: texts at which reading stops inside the reasoning, for the caller to decide how it goes on.
    """

    def __init__(
        self,
        tags: tuple[str, str],
        *,
        starts_open: bool = False,
        verbatim: bool = False,
        interrupts: tuple[str, ...] = (),
    ) -> None:
        self._open, self._close_tag = tags
        self._close = MarkerScanner(tags[1], *interrupts)
        self._interruption: tuple[str, str] | None = None
        self._leading = (self._open,) if starts_open else tags
        self._starts_open = starts_open
        self._verbatim = verbatim
        self._step: Callable[[str, list[Event]], str] = self._beginning
        self._space: list[str] = []  # whitespace before an opening tag
        self._tag = ""  # the part of an opening tag that has arrived
        self._newlines: list[str] = []  # line ends that may precede a closing tag
        self._empty = True  # no reasoning written yet

    @property
    def inside(self) -> bool:
        """Whether the last text read is reasoning."""
        return self._step == self._reasoning or (self._step == self._beginning and self._starts_open)

    @property
    def ended(self) -> bool:
        """Whether all that follows is content."""
        return self._step == self._content

    @property
    def interrupted(self) -> bool:
        """Whether reading stopped at one of `interrupts`."""
        return self._interruption is not None

    def take_interruption(self) -> tuple[str, str]:
        """The text at which reading stopped, and the text after it; the next `feed` goes on in the reasoning."""
        if self._interruption is None:
            raise RuntimeError("reading was not interrupted")
        found, self._interruption = self._interruption, None
        return found

    def ignore_interrupts(self) -> None:
        """Take the texts `interrupts` for reasoning from here on; only directly after `take_interruption`."""
        self._close = MarkerScanner(self._close_tag)

    def write(self, text: str) -> list[Event]:
        """The events of a text that is reasoning, whatever it holds."""
        events: list[Event] = []
        self._write(text, events)
        return events

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            text = self._step(text, events)
        return events

    def flush(self) -> list[Event]:
        events = self.feed(self._resolve()) if self._step == self._beginning else []
        if self._step == self._reasoning:
            self._write(self._close.flush(), events)
            if self._newlines and not self._empty:
                events.append(ReasoningDelta("".join(self._newlines)))
            self._newlines = []
        return events

    # Each step reads the beginning of the text and returns the rest.

    def _beginning(self, text: str, events: list[Event]) -> str:
        if not self._tag and (space := _SPACE.match(text)) and space.end():
            self._space.append(space.group())
            return text[space.end() :]
        for position, char in enumerate(text):
            begun = self._tag + char
            if not any(tag.startswith(begun) for tag in self._leading):
                return self._resolve() + text[position:]
            self._tag = begun
            if begun in self._leading:
                return self._resolve() + text[position + 1 :]
        return ""

    def _resolve(self) -> str:
        """Choose the next step; returns the held text that it must read."""
        if self._tag and self._tag == self._close_tag and not self._starts_open and not self._verbatim:
            # A model that does not think may close the block that it has not opened.
            self._space, self._tag = [], ""
            self._step = self._after_block
            return ""
        opened = self._tag == self._open
        held = "".join(self._space) + self._tag
        self._space, self._tag = [], ""
        self._step = self._reasoning if opened or self._starts_open else self._content
        return "" if opened and not self._verbatim else held

    def _reasoning(self, text: str, events: list[Event]) -> str:
        clear, close, position = self._close.scan(text)
        self._write(clear, events)
        if close and close != self._close_tag:
            self._interruption = (close, text[position:])
            return ""
        if close:
            if self._verbatim:
                events.append(ReasoningDelta(close))
            self._newlines = []
            self._step = self._after_block
        return text[position:]

    def _write(self, text: str, events: list[Event]) -> None:
        if self._verbatim:
            body = text
        else:
            if self._empty:
                text = text.lstrip(_NEWLINES)
            body = text.rstrip(_NEWLINES)
        if body:
            events.append(ReasoningDelta("".join(self._newlines) + body))
            self._newlines, self._empty = [], False
        if len(body) < len(text):
            self._newlines.append(text[len(body) :])

    def _after_block(self, text: str, events: list[Event]) -> str:
        rest = text if self._verbatim else text.lstrip(_NEWLINES)
        if rest:
            self._step = self._content
        return rest

    def _content(self, text: str, events: list[Event]) -> str:
        events.append(ContentDelta(text))
        return ""
