# SPDX-License-Identifier: Apache-2.0
"""gpt-oss: an answer is a series of messages, each with a channel, in the Harmony format.

`<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.name
<|constrain|>json<|message|>{...}<|call|>`. The package openai-harmony is not used: it reads token ids, of a vocabulary
that it loads from the network.
"""

import re
from collections.abc import Callable

from common.markers import MarkerScanner
from families.parsers.events import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallStart,
    new_call_id,
)

CHANNEL, MESSAGE, START, CONSTRAIN = "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"
ENDS = ("<|end|>", "<|return|>", "<|call|>")
MARKERS = (CHANNEL, MESSAGE, START, CONSTRAIN, *ENDS)

# Of a header; a longer one is the text of a message whose marker is missing.
_LONGEST_HEADER = 512
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)")
_RECIPIENT_START = "to="
_CHANNEL_NAME = re.compile(r"\s*(\w+)")


class HarmonyParser:
    """Reads the messages of an answer: analysis is reasoning, calls go to functions, all else is content.

    tools: whether calls are read; without, a message to a function is content.
    starts_open: the prompt ends inside the analysis.
    """

    def __init__(self, *, tools: bool, starts_open: bool = False) -> None:
        self._tools = tools
        self._scanner = MarkerScanner(*MARKERS)
        self._write: Callable[[str], Event] = ReasoningDelta if starts_open else ContentDelta
        self._header: str | None = None  # the header being read
        # The prompt ends in the header of a message, which may go on with a recipient, or in a message to be continued.
        # Text after the end of a message is taken in the same way.
        self._lead: str | None = None if starts_open else ""
        self._ended = False  # a message has ended
        self._calls = 0
        self._written = False  # content of an earlier message
        self._separate = False

    @property
    def inside(self) -> bool:
        """Whether the last text read is reasoning."""
        return self._header is None and self._write is ReasoningDelta

    def feed(self, text: str) -> list[Event]:
        events: list[Event] = []
        position = 0
        while position < len(text):
            clear, marker, position = self._scanner.scan(text, position)
            if clear:
                self._text(clear, events)
            if marker:
                self._marker(marker, events)
        return events

    def flush(self) -> list[Event]:
        events: list[Event] = []
        if rest := self._scanner.flush():
            self._text(rest, events)
        if self._lead and (self._lead.strip() or not self._ended):
            self._write_body(self._lead, events)
        elif self._header and self._header.lstrip().startswith(_RECIPIENT_START):
            self._write_body(self._header, events)  # Text that only begins as the rest of the prompt's header would.
        return events

    def _text(self, text: str, events: list[Event]) -> None:
        if self._lead is not None:
            self._lead += text
            lead = self._lead.lstrip()[: len(_RECIPIENT_START)]
            if lead != _RECIPIENT_START and _RECIPIENT_START.startswith(lead):
                return
            text, self._lead = self._lead, None
            if lead == _RECIPIENT_START:
                self._header = ""
        if self._header is not None:
            self._header += text
            if len(self._header) > _LONGEST_HEADER:
                text, self._header = self._header, None
                self._begin_content()
                self._write_body(text, events)
            return
        self._write_body(text, events)

    def _write_body(self, text: str, events: list[Event]) -> None:
        if self._write is ContentDelta:
            # A preamble and the final answer are two texts.
            if self._separate:
                text = "\n\n" + text
                self._separate = False
            self._written = True
        events.append(self._write(text))

    def _marker(self, marker: str, events: list[Event]) -> None:
        if self._lead and self._lead.strip():
            self._write_body(self._lead, events)
        self._lead = None
        if marker == MESSAGE:
            self._begin(self._header or "", events)
        elif marker == CONSTRAIN:
            self._header = None if self._header is None else self._header + " "
        elif marker == CHANNEL and self._header is not None:
            self._header += marker
        else:
            self._header = {CHANNEL: marker, START: ""}.get(marker)
            if self._header is None:
                self._begin_content()
                self._lead, self._ended = "", True

    def _begin(self, header: str, events: list[Event]) -> None:
        """Begin the body of a message."""
        self._header = None
        _, _, channel = header.rpartition(CHANNEL)
        found = _CHANNEL_NAME.match(channel)
        recipient = _RECIPIENT.search(header)
        if recipient and self._tools:
            index = self._calls
            events.append(ToolCallStart(index, new_call_id(), recipient[1]))
            self._calls += 1
            self._write = lambda text: ToolArgumentsDelta(index, text)
        elif found and found[1] == "analysis":
            self._write = ReasoningDelta
        else:
            self._begin_content()

    def _begin_content(self) -> None:
        self._write = ContentDelta
        self._separate = self._written
