# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 tool calls. The family has no special markup; it writes calls in fences or as the whole answer."""

from collections.abc import Callable

from common.chat.text_arguments import TextArguments
from common.markers import MarkerScanner
from families.parsers.call_prefix import JSON_PREFIXES, CallPrefix
from families.parsers.content import ContentWriter
from families.parsers.events import Event, ToolCall, call_events
from families.parsers.whole_calls import read_json_calls, read_python_calls

FENCES = ("```tool_code", "```tool_call", "```json")
FENCE_END = "\n```"


class GemmaCalls:
    """The markup of Gemma 3: fences of code, which other text may have too, so that nothing is a trigger."""

    markers: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()

    def parser(self, text_arguments: TextArguments) -> "GemmaParser":
        """A parser of one answer."""
        return GemmaParser()


class GemmaParser:
    """Reads calls in fences, and answers that consist of calls.

    Fences are ```` ```tool_code ````, ```` ```tool_call ```` and ```` ```json ````, anywhere in the answer. A whole
    answer may be `{"name": ..., "parameters": {...}}` or `[name(key=value), ...]`.

    A fence or answer that begins like calls is held to its end and must be a complete, valid list of them; otherwise
    it is content, unchanged (`[1]`, `[text](link)` and other JSON are passed on without delay).
    """

    def __init__(self) -> None:
        self._content = ContentWriter()
        self._fences = MarkerScanner(*FENCES)
        self._fence_end = MarkerScanner(FENCE_END)
        self._step: Callable[[str, list[Event]], str] = self._beginning
        self._prefix = CallPrefix(JSON_PREFIXES, python_list=True)
        self._held: list[str] = []  # text that may be calls
        self._fence = ""  # the fence that opened the held text
        self._calls = 0

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        while text:
            text = self._step(text, events)
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        if self._step == self._in_fence:
            self._held.append(self._fence_end.flush())
        elif self._step == self._outside:
            events += self._content.text(self._fences.flush())
        if self._step != self._outside:
            self._conclude(events)
        return events + self._content.flush()

    # Each step reads the beginning of the text and returns the rest.

    def _beginning(self, text: str, events: list[Event]) -> str:
        self._held.append(text)
        may_be_calls = self._prefix.feed(text)
        if may_be_calls is None:
            return ""
        if may_be_calls:
            self._step = self._whole
            return ""
        return self._release()

    def _whole(self, text: str, events: list[Event]) -> str:
        self._held.append(text)
        return ""

    def _outside(self, text: str, events: list[Event]) -> str:
        clear, fence, position = self._fences.scan(text)
        events += self._content.text(clear)
        if fence:
            self._fence = fence
            self._prefix = CallPrefix(JSON_PREFIXES, python_list=True, python_call=True)
            self._step = self._fence_beginning
        return text[position:]

    def _fence_beginning(self, text: str, events: list[Event]) -> str:
        """Release a fence of another language (```` ```jsonc ````) or whose text does not begin like calls."""
        self._held.append(text)
        may_be_calls = self._prefix.feed(text) if self._held[0][0].isspace() else False
        if may_be_calls is False:
            events += self._content.text(self._fence)
            return self._release()
        if may_be_calls is None:
            return ""
        self._step = self._in_fence
        held, self._held = "".join(self._held), []
        return held

    def _in_fence(self, text: str, events: list[Event]) -> str:
        clear, end, position = self._fence_end.scan(text)
        self._held.append(clear)
        if end:
            self._conclude(events, end)
        return text[position:]

    def _release(self) -> str:
        """Return the held text, to be read again as content with fences."""
        held, self._held, self._fence = "".join(self._held), [], ""
        self._step = self._outside
        return held

    def _conclude(self, events: list[Event], end: str = "") -> None:
        """Write the held text as calls, or as content if it is not calls."""
        fence = self._fence
        body = self._release()
        calls = _read_calls(body)
        if calls:
            events += call_events(self._calls, calls)
            self._calls += len(calls)
            self._content.call()
        else:
            events += self._content.text(fence + body + end)


def _read_calls(text: str) -> list[ToolCall] | None:
    return read_json_calls(text) or read_python_calls(text)
