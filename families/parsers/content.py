# SPDX-License-Identifier: Apache-2.0
"""The text around tool calls."""

from families.parsers.events import ContentDelta, Event


class ContentWriter:
    """Writes content and leaves out the whitespace around tool calls.

    Whitespace is held until it is known what follows. Where text follows calls and text preceded them, the
    whitespace before the calls (or, without any, the one behind them) stays, to keep the two texts apart.
    """

    def __init__(self) -> None:
        self._before: list[str] = []
        self._after: list[str] = []
        self._behind_call = False
        self._written = False

    def text(self, text: str) -> list[Event]:
        """More content."""
        if self._behind_call:
            text = self._skip_space(text)
        body = text.rstrip()
        if not body:
            if text:
                self._before.append(text)
            return []
        event = ContentDelta(self._separator() + body)
        self._before, self._after = [text[len(body) :]], []
        self._behind_call, self._written = False, True
        return [event]

    def _skip_space(self, text: str) -> str:
        rest = text.lstrip()
        self._after.append(text[: len(text) - len(rest)])
        return rest

    def _separator(self) -> str:
        if self._behind_call and not self._written:
            return ""
        return "".join(self._before) or "".join(self._after)

    def call(self) -> None:
        """A tool call stands here."""
        self._behind_call = True
        self._after = []

    def flush(self) -> list[Event]:
        """The whitespace at the end of the answer, unless it stands behind a call."""
        space = "" if self._behind_call else "".join(self._before)
        self._before = []
        return [ContentDelta(space)] if space else []
