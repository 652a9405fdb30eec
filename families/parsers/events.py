# SPDX-License-Identifier: Apache-2.0
"""What parsers make of an answer's text."""

import secrets
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ContentDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A call begins. index: its place among the answer's calls, from 0; id: unique to the call."""

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
    """A call read as a whole. arguments: JSON text."""

    name: str
    arguments: str


class Parser(Protocol):
    """An incremental parser: the events of text in pieces add up to those of the whole text, however it is cut."""

    def feed(self, text: str) -> list[Event]: ...

    def flush(self) -> list[Event]:
        """What is left when the answer has ended."""
        ...


def new_call_id() -> str:
    return "call_" + secrets.token_hex(12)


def call_events(first_index: int, calls: list[ToolCall]) -> list[Event]:
    """The events of whole calls, numbered from `first_index`."""
    events: list[Event] = []
    for index, call in enumerate(calls, first_index):
        events += (ToolCallStart(index, new_call_id(), call.name), ToolArgumentsDelta(index, call.arguments))
    return events
