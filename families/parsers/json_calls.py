# SPDX-License-Identifier: Apache-2.0
"""Calls as JSON objects after a tag: `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` and its kind."""

from collections.abc import Callable
from dataclasses import dataclass

from common.chat.text_arguments import TextArguments
from common.markers import MarkerScanner
from families.parsers.call_reader import CallReader, Status
from families.parsers.content import ContentWriter
from families.parsers.events import Event, ToolArgumentsDelta, ToolCallStart, new_call_id


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """The markup of a format.

    open: the tag before calls. close: the tag after them; "" if there is none. also: other opening tags of the family.
    """

    open: str
    close: str = ""
    also: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of the markup."""
        return (*self.triggers, self.close) if self.close else self.triggers

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts that calls begin with."""
        return (self.open, *self.also)

    def parser(self, text_arguments: TextArguments) -> "JsonCallsParser":
        """A parser of one answer."""
        return JsonCallsParser(self)


class JsonCallsParser:
    """Reads tool calls between text, and streams their arguments.

    Between the tags is one object, several in succession, or an array of them.
    JSON that is invalid before a call has begun, or unfinished at the end, stays in the content with its tags. A call
    that has begun cannot be revoked: if its arguments become invalid, all text up to the closing tag is streamed as
    arguments; invalid text after complete arguments is content, so that the arguments stay valid.
    """

    def __init__(self, form: JsonCalls) -> None:
        self._opens, self._close_tag = form.triggers, form.close
        self._opened = form.open  # the tag before the current calls
        self._content = ContentWriter()
        self._tags = MarkerScanner(*form.markers)
        # Without a closing tag only another call can end a broken one.
        self._close = MarkerScanner(*((form.close,) if form.close else form.triggers))
        self._reader = CallReader()
        self._step: Callable[[str, int, list[Event]], int] = self._outside
        self._calls = 0
        self._close_due = False  # a call's object has ended, its closing tag has not arrived
        self._called = False  # a call has begun since the opening tag
        self._array = ""  # the text up to the bracket of an array of calls

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        position = 0
        while position < len(text):
            position = self._step(text, position, events)
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        if self._step == self._call:
            self._give_up(events)
        elif self._step == self._broken:
            self._arguments(self._close.flush(), events)
        else:
            events += self._content.text(self._tags.flush())
        return events + self._content.flush()

    # Each step reads from a position and returns the position where it stopped.

    def _outside(self, text: str, position: int, events: list[Event]) -> int:
        clear, tag, position = self._tags.scan(text, position)
        if clear:
            events += self._content.text(clear)
        if tag in self._opens:
            self._enter(tag)
        elif tag and self._close_due:
            self._end_call()
        elif tag:
            events += self._content.text(tag)
        return position

    def _enter(self, tag: str) -> None:
        self._opened = tag
        self._reader = CallReader()
        self._array, self._called = "", False
        self._step = self._call

    def _call(self, text: str, position: int, events: list[Event]) -> int:
        reader = self._reader
        announced = reader.begun
        position = reader.feed(text, position)
        if reader.begun and not announced:
            events.append(ToolCallStart(self._calls, new_call_id(), reader.name))
            self._calls += 1
            self._called = True
            self._content.call()
        self._arguments(reader.take(), events)
        if reader.status is Status.BROKEN:
            self._step = self._broken
        elif reader.status is Status.DONE:
            self._step = self._between if self._array else self._after_object
        elif reader.status is Status.FAILED and not self._array and self._opens_array(text, position):
            self._array = reader.rest + "["
            self._reader = CallReader()
            position += 1
        elif reader.status is not Status.READING:
            self._give_up(events)
        return position

    def _opens_array(self, text: str, position: int) -> bool:
        return text[position : position + 1] == "[" and not self._reader.rest.strip()

    def _between(self, text: str, position: int, events: list[Event]) -> int:
        """Read what follows a call in an array: another one, or the end."""
        if text[position].isspace():
            return position + 1
        if text[position] == ",":
            self._reader = CallReader()
            self._step = self._call
            return position + 1
        self._give_up(events)
        return position + (text[position] == "]")

    def _after_object(self, text: str, position: int, events: list[Event]) -> int:
        """Read what follows a call that is in no array: another one, or the end."""
        if self._close_tag and text[position].isspace():
            return position + 1
        if self._close_tag and text[position] == "{":
            self._reader = CallReader()
            self._step = self._call
        else:
            self._give_up(events)
        return position

    def _broken(self, text: str, position: int, events: list[Event]) -> int:
        clear, tag, position = self._close.scan(text, position)
        self._arguments(clear, events)
        if tag:
            self._end_call()
            if not self._close_tag:
                self._enter(tag)
        return position

    def _give_up(self, events: list[Event]) -> None:
        """Leave the object, complete or not; text that was read and not used is content."""
        unread = self._reader.rest if self._called else self._opened + self._array + self._reader.rest
        events += self._content.text(unread)
        self._close_due = self._called and bool(self._close_tag)
        self._step = self._outside

    def _end_call(self) -> None:
        self._content.call()
        self._close_due = False
        self._step = self._outside

    def _arguments(self, text: str, events: list[Event]) -> None:
        if text:
            events.append(ToolArgumentsDelta(self._calls - 1, text))
