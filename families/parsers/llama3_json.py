# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1 to 3.3 tool calls: the answer is `{"name": ..., "parameters": {...}}`, several separated by `;`."""

from families.parsers.call_prefix import JSON_PREFIXES, CallPrefix
from families.parsers.events import ContentDelta, Event, call_events
from families.parsers.whole_calls import read_json_calls

PYTHON_TAG = "<|python_tag|>"


class Llama3JsonParser:
    """Reads answers that consist of calls, with or without a leading `<|python_tag|>`.

    An answer that begins like a call is held to its end, since text may still follow; any other is passed on at once.
    """

    def __init__(self) -> None:
        self._prefix = CallPrefix([*JSON_PREFIXES, *(PYTHON_TAG + start for start in JSON_PREFIXES)])
        self._may_be_calls: bool | None = None
        self._held: list[str] = []

    def feed(self, text: str) -> list[Event]:
        if self._may_be_calls is None:
            self._may_be_calls = self._prefix.feed(text)
        self._held.append(text)
        return self._release() if self._may_be_calls is False else []

    def flush(self) -> list[Event]:
        calls = read_json_calls("".join(self._held).lstrip().removeprefix(PYTHON_TAG)) if self._may_be_calls else None
        return call_events(0, calls) if calls else self._release()

    def _release(self) -> list[Event]:
        text = "".join(self._held)
        self._held.clear()
        return [ContentDelta(text)] if text else []
