# SPDX-License-Identifier: Apache-2.0
"""The events that parsers yield, and the protocol of a parser."""

import secrets
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """The next piece of the answer's content."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """The next piece of the reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """The beginning of a tool call. index: number of the call in the answer, from 0; id: unique to the call."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolArgumentsDelta:
    """The next piece of the JSON text of a call's arguments."""

    index: int
    text: str


Event = ContentDelta | ReasoningDelta | ToolCallStart | ToolArgumentsDelta


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A complete tool call. arguments: JSON text."""

    name: str
    arguments: str


class Parser(Protocol):
    """An incremental parser: the same text gives the same answer, however it is cut into pieces."""

    def feed(self, text: str) -> list[Event]:
        """The events of the next piece of text."""
        ...

    def flush(self) -> list[Event]:
        """The remaining events at the end of the answer."""
        ...


def new_call_id() -> str:
    """A new unique id of a tool call."""
    return "call_" + secrets.token_hex(12)


def call_events(first_index: int, calls: list[ToolCall]) -> list[Event]:
    """The events of complete calls, numbered from `first_index`."""
    events: list[Event] = []
    for index, call in enumerate(calls, first_index):
        events += (ToolCallStart(index, new_call_id(), call.name), ToolArgumentsDelta(index, call.arguments))
    return events
