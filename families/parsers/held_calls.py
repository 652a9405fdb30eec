# SPDX-License-Identifier: Apache-2.0
"""Calls that are read when they are whole: between tags, or as the whole answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.chat.text_arguments import TextArguments
from common.markers import MarkerScanner
from families.parsers.call_prefix import CallPrefix
from families.parsers.content import ContentWriter
from families.parsers.events import ContentDelta, Event, ToolCall, call_events

# Reads calls from a complete text; None if it is anything else.
Reader = Callable[[str], list[ToolCall] | None]


@dataclass(frozen=True, slots=True)
class HeldCalls:
    """The markup of a format whose calls stand between tags. readers: tried in turn. inner: further markup in calls."""

    open: str
    close: str
    readers: tuple[Reader, ...]
    inner: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """All texts of the markup."""
        return (self.open, self.close, *self.inner)

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts that calls begin with."""
        return (self.open,)

    def parser(self, text_arguments: TextArguments) -> "HeldCallsParser":
        """A parser of one answer."""
        return HeldCallsParser(self)


class HeldCallsParser:
    """Reads tool calls between text; text between tags that is no call stays in the content with its tags."""

    def __init__(self, form: HeldCalls) -> None:
        self._form = form
        self._content = ContentWriter()
        self._open = MarkerScanner(form.open)
        self._close = MarkerScanner(form.close)
        self._held: list[str] | None = None  # the text after an opening tag
        self._calls = 0

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        position = 0
        while position < len(text):
            if self._held is None:
                clear, tag, position = self._open.scan(text, position)
                if clear:
                    events += self._content.text(clear)
                if tag:
                    self._held = []
            else:
                clear, tag, position = self._close.scan(text, position)
                self._held.append(clear)
                if tag:
                    self._conclude(tag, events)
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        if self._held is None:
            events += self._content.text(self._open.flush())
        else:
            self._held.append(self._close.flush())
            self._conclude("", events)  # A model may end the answer instead of closing the tag.
        return events + self._content.flush()

    def _conclude(self, close: str, events: list[Event]) -> None:
        body, self._held = "".join(self._held or ()), None
        calls = first_of(self._form.readers, body)
        if calls:
            events += call_events(self._calls, calls)
            self._calls += len(calls)
            self._content.call()
        else:
            events += self._content.text(self._form.open + body + close)


@dataclass(frozen=True, slots=True)
class WholeAnswer:
    """The markup of a format whose answers are calls or text.

    json: beginnings of calls, without whitespace. python_list: an answer of `[name(key=value)]` is calls.
    dropped: a text before or after calls that is not part of them.
    """

    readers: tuple[Reader, ...]
    json: tuple[str, ...]
    python_list: bool = False
    dropped: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        """None that must reach the parser: without the tags calls are read as well, and text must not show them."""
        return ()

    @property
    def triggers(self) -> tuple[str, ...]:
        """The texts that calls begin with: none that other text could not begin with."""
        return ()

    def parser(self, text_arguments: TextArguments) -> "WholeAnswerParser":
        """A parser of one answer."""
        return WholeAnswerParser(self)


class WholeAnswerParser:
    """Reads answers that consist of calls.

    An answer that begins like a call is held to its end, since text may still follow; any other is passed on at once.
    """

    def __init__(self, form: WholeAnswer) -> None:
        self._form = form
        starts = [lead + start for lead in ("", *form.dropped) for start in form.json]
        # What a Python list looks like after a tag is decided at the end.
        leads = list(form.dropped) if form.python_list else []
        self._prefix = CallPrefix([*starts, *leads], python_list=form.python_list)
        self._may_be_calls: bool | None = None
        self._held: list[str] = []

    def feed(self, text: str) -> list[Event]:
        if self._may_be_calls is None:
            self._may_be_calls = self._prefix.feed(text)
        self._held.append(text)
        return self._release() if self._may_be_calls is False else []

    def flush(self) -> list[Event]:
        body = "".join(self._held).strip()
        for tag in self._form.dropped:
            body = body.removeprefix(tag).removesuffix(tag).strip()
        calls = first_of(self._form.readers, body) if self._may_be_calls else None
        return call_events(0, calls) if calls else self._release()

    def _release(self) -> list[Event]:
        text = "".join(self._held)
        self._held.clear()
        return [ContentDelta(text)] if text else []


def first_of(readers: Sequence[Reader], text: str) -> list[ToolCall] | None:
    """The calls that the first fitting reader finds; None if none does."""
    return next((calls for reader in readers if (calls := reader(text))), None)
