# SPDX-License-Identifier: Apache-2.0
"""Completes the JSON of calls whose arguments end too early, for clients that read the arguments of every call."""

from families.parsers.events import Event, ToolArgumentsDelta, ToolCallStart
from families.parsers.json_structure import JsonStructure
from families.parsers.json_text import load

# How models write that a call has no arguments.
_NOTHING = ("", "null", '""')
# The rest of a value: of a string, of a key, after an escape; after a value, a key, a colon; of a word, of a number.
_IN_STRING = ('"', '":null', '\\"', '\\":null')
_OUTSIDE = ("", ":null", "null", *("rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l"), "0")


def closing(text: str) -> str | None:
    """The text that completes the beginning of a JSON text; None if there is none.

    A key without a value, or without its end, gets null. What follows a comma is not made up.
    """
    structure = JsonStructure()
    structure.feed(text)
    if structure.broken or (not structure.in_string and text.rstrip().endswith(",")):
        return None
    for rest in _IN_STRING if structure.in_string else _OUTSIDE:
        try:
            load(text + rest + structure.closers)
        except ValueError:
            continue
        return rest + structure.closers
    return None


def or_nothing(arguments: str) -> str:
    """Arguments as they are, or `{}` if they say that there are none."""
    return "{}" if arguments.strip() in _NOTHING else arguments


class ArgumentsCompleter:
    """Adds to the arguments of every call that has ended what they need to be JSON, if they can be completed."""

    def __init__(self) -> None:
        self._index: int | None = None  # of the call that is open
        self._begin()

    def feed(self, events: list[Event], *, cut: bool = False) -> list[Event]:
        """The events with arguments completed. cut: see `flush`; a call that another one follows is not cut."""
        if self._index is None:
            for event in events:
                if isinstance(event, ToolCallStart):
                    break
            else:
                return events
        completed: list[Event] = []
        for event in events:
            if isinstance(event, ToolArgumentsDelta):
                completed += self._add(event)
                continue
            completed += self.flush(cut=cut and not isinstance(event, ToolCallStart))
            completed.append(event)
            if isinstance(event, ToolCallStart):
                self._index = event.index
        return completed

    def flush(self, *, cut: bool = False) -> list[Event]:
        """The rest of the open call's arguments.

        cut: the model has not ended the answer, and arguments stay unfinished.
        """
        index, self._index = self._index, None
        if index is None:
            return []
        sent = "".join(self._sent)
        text = "".join([sent, *self._held])
        self._begin()
        if not cut:
            text += closing(text) or ""
            text = text if sent else or_nothing(text)
        return [ToolArgumentsDelta(index, text[len(sent) :])] if len(text) > len(sent) else []

    def _begin(self) -> None:
        self._sent: list[str] = []
        self._held: list[str] = []  # arguments that may say that there are none
        self._head = ""  # of them, without whitespace

    def _add(self, event: ToolArgumentsDelta) -> list[Event]:
        if not self._sent:
            self._held.append(event.text)
            self._head = (self._head + event.text).strip()
            if any(nothing.startswith(self._head) for nothing in _NOTHING):
                return []
            event = ToolArgumentsDelta(event.index, "".join(self._held))
            self._held.clear()
        self._sent.append(event.text)
        return [event]
