# SPDX-License-Identifier: Apache-2.0
"""Finds the end of a JSON object or array in text that arrives in pieces."""

import re

_IN_STRING = re.compile(r'["\\]')
# `<` outside a string is not JSON; it may begin the tag that closes a call whose JSON is unfinished.
_IN_STRUCTURE = re.compile(r'["{}\[\]<]')
CLOSERS = {"{": "}", "[": "]"}


class JsonStructure:
    """Reads an object or array up to its closing bracket, each character once.

    Only strings and brackets are checked.
    """

    def __init__(self) -> None:
        self.complete = False
        self.broken = False  # a bracket that does not match, or a `<`
        self._strings = JsonString()
        self._in_string = False
        self._closers: list[str] = []  # closing brackets that are still needed

    @property
    def in_string(self) -> bool:
        """Whether the text read so far ends inside a string."""
        return self._in_string

    @property
    def closers(self) -> str:
        """The brackets that close what is open."""
        return "".join(reversed(self._closers))

    def feed(self, text: str, start: int = 0) -> int:
        """Read text[start:] and return the position of the first character that was not read."""
        position = start
        while position < len(text) and not self.complete and not self.broken:
            if self._in_string:
                position = self._strings.feed(text, position)
                self._in_string = not self._strings.complete
                continue
            found = _IN_STRUCTURE.search(text, position)
            if found is None:
                return len(text)
            position = found.start()
            if not self._turn(found.group()):
                self.broken = True
                return position
            position += 1
            self.complete = not self._closers and not self._in_string
        return position

    def _turn(self, char: str) -> bool:
        """Track a quote or bracket; False if it is invalid here."""
        if char == '"':
            self._strings, self._in_string = JsonString(), True
        elif char in CLOSERS:
            self._closers.append(CLOSERS[char])
        else:
            return bool(self._closers) and self._closers.pop() == char
        return True


class JsonString:
    """Reads a JSON string after its opening quote, up to and with the closing one."""

    def __init__(self) -> None:
        self.complete = False
        self._escaped = False

    def feed(self, text: str, position: int) -> int:
        """Read text[position:] and return the position of the first character that was not read."""
        while position < len(text) and not self.complete:
            if self._escaped:
                self._escaped = False
                position += 1
                continue
            found = _IN_STRING.search(text, position)
            if found is None:
                return len(text)
            position = found.end()
            self.complete = found.group() == '"'
            self._escaped = not self.complete
        return position
