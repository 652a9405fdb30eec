# SPDX-License-Identifier: Apache-2.0
"""Arguments written as parameters with tags of their own: their markup, and their values on the way to JSON."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from families.parsers.arguments import json_value, quoted
from families.parsers.whole_arguments import closing

CDATA, CDATA_END = "<![CDATA[", "]]>"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The markup of one argument: `begin` header `header_end` value `end`.

    header: matches the whole header. Group `key` is the argument's name; `text`, if it takes part in the match, says
    whether the value is text ("true" or "string") or JSON.
    value_begin: a tag between header_end and the value, after whitespace.
    end: may hold `{key}`.
    trim: one line end at each end of a value belongs to the markup.
    entities: a key has the entities of XML for its quotes.
    cdata: a value may be wrapped in `<![CDATA[` and `]]>`.
    read: the JSON text of a value that is not known to be text.
    """

    begin: str
    header_end: str
    end: str
    header: re.Pattern[str] = re.compile(r"\s*+(?P<key>[^>]*)")
    value_begin: str = ""
    trim: bool = False
    entities: bool = False
    cdata: bool = False
    read: Callable[[str], str] = json_value


class ParameterValue:
    """One value on its way to JSON: text is passed on as it arrives, anything else when it is whole."""

    def __init__(self, markup: Parameters, *, as_text: bool) -> None:
        self._markup = markup
        self._as_text = as_text
        self._streams = as_text and not markup.cdata
        self._pieces: list[str] = []  # of a value that is held
        self._begun = False
        self._line_end = ""  # one that is markup if nothing follows

    def feed(self, text: str) -> str:
        """The JSON text that the next piece adds."""
        if not text:
            return ""
        if not self._streams:
            self._pieces.append(text)
            return ""
        return self._stream(text)

    def _stream(self, text: str) -> str:
        written = ""
        if not self._begun:
            self._begun, written = True, '"'
            if self._markup.trim:
                text = text.removeprefix("\n")
        text = self._line_end + text
        self._line_end = ""
        if self._markup.trim and text.endswith("\n"):
            text, self._line_end = text[:-1], "\n"
        return written + quoted(text)[1:-1]

    def cut(self) -> str:
        """The JSON text that is missing of a value whose end is missing; it is not closed."""
        value = "".join(self._pieces).lstrip()
        if self._markup.cdata and value.startswith(CDATA):
            return quoted(value.removeprefix(CDATA))[:-1]
        if not value or (not self._as_text and value[0] in "{[" and closing(value) is not None):
            return value
        read = quoted(value) if self._as_text else self._markup.read(value)
        return read[:-1] if read.startswith('"') else read

    def finish(self) -> str:
        """The JSON text that is missing at the end of the value."""
        if self._streams:
            return '"' if self._begun else '""'
        value = "".join(self._pieces)
        if self._markup.trim:
            value = value.removeprefix("\n").removesuffix("\n")
        if self._markup.cdata and value.lstrip().startswith(CDATA):
            return quoted(value.lstrip().removeprefix(CDATA))  # Its end belongs to the closing tag.
        return quoted(value) if self._as_text else self._markup.read(value)
