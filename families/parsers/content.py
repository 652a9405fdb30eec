# SPDX-License-Identifier: Apache-2.0
"""Writes the text around tool calls."""

from families.parsers.events import ContentDelta, Event


class ContentWriter:
    """Writes content without the whitespace around tool calls.

    Whitespace is held until the text after it is known. Between two texts with calls between them, the whitespace
    before the calls (or, if there is none, that after them) is kept, so that the texts stay apart.
    """

    def __init__(self) -> None:
        self._before: list[str] = []
        self._after: list[str] = []
        self._after_call = False
        self._written = False

    def text(self, text: str) -> list[Event]:
        """The events of a piece of content."""
        if self._after_call:
            text = self._skip_space(text)
        body = text.rstrip()
        if not body:
            if text:
                self._before.append(text)
            return []
        event = ContentDelta(self._separator() + body)
        self._before, self._after = [text[len(body) :]], []
        self._after_call, self._written = False, True
        return [event]

    def _skip_space(self, text: str) -> str:
        rest = text.lstrip()
        self._after.append(text[: len(text) - len(rest)])
        return rest

    def _separator(self) -> str:
        if self._after_call and not self._written:
            return ""
        return "".join(self._before) or "".join(self._after)

    def call(self) -> None:
        """Record that a tool call follows the content written so far."""
        self._after_call = True
        self._after = []

    def flush(self) -> list[Event]:
        """The whitespace at the end of the answer, unless it follows a call."""
        space = "" if self._after_call else "".join(self._before)
        self._before = []
        return [ContentDelta(space)] if space else []
