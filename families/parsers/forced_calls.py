# SPDX-License-Identifier: Apache-2.0
"""Parses answers that must be calls: between tags, or as JSON only from engines that cannot enforce tags."""

from families.parsers.call_prefix import JSON_PREFIXES
from families.parsers.events import Event, Parser
from families.parsers.held_calls import WholeAnswer, WholeAnswerParser
from families.parsers.whole_calls import read_json_calls

_JSON = WholeAnswer((read_json_calls,), JSON_PREFIXES)


class ForcedCallsParser:
    """Reads JSON calls, or what another parser reads if the answer does not begin as JSON."""

    def __init__(self, tagged: Parser) -> None:
        """Create the parser. tagged: the parser of calls between tags."""
        self._parser = tagged
        self._chosen = False
        self._held = ""

    def feed(self, text: str) -> list[Event]:
        if not self._chosen:
            text, self._held = self._held + text, ""
            start = text.lstrip()
            array = start.startswith("[")
            inner = start[1:].lstrip() if array else start
            if not inner:
                self._held = text
                return []
            self._chosen = True
            if inner.startswith("{") or (array and inner.startswith("]")):  # A tag may begin with a bracket too.
                self._parser = WholeAnswerParser(_JSON)
        return self._parser.feed(text)

    def flush(self) -> list[Event]:
        events = self._parser.feed(self._held) if self._held else []
        return events + self._parser.flush()
