# SPDX-License-Identifier: Apache-2.0
"""Incremental reader of one `{"name": ..., "arguments": ...}` object."""

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto

from families.parsers.json_structure import CLOSERS, JsonString, JsonStructure
from families.parsers.json_text import is_text, load, unquoted_object

NAME_KEYS = frozenset({"name", "tool_name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
# Keys whose text is not used: a number of the call, which is unique within its answer only.
_UNUSED_KEYS = frozenset({"id", "tool_call_id"})
_KEYS = (NAME_KEYS, ARGUMENT_KEYS, _UNUSED_KEYS, frozenset({"type"}))

_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR_END = re.compile(r"[ \t\r\n,}]")

_Step = Callable[[str, int], int]


class Status(Enum):
    """How far the reader of a call object is."""

    READING = auto()
    DONE = auto()  # the object is complete, and a call
    FAILED = auto()  # not a call, or invalid text after the arguments
    BROKEN = auto()  # the arguments of a call that has begun are not JSON


class CallReader:
    """Reads a call object from text in pieces, each character once.

    A call has begun when its name is known and its arguments start; from then on they are streamed byte for byte.
    Arguments written as a JSON string are read to the end first, since the string may hold a JSON object.
    Within arguments only strings and brackets are checked; other errors are passed to the client.

    Keys: `name` or `tool_name`, `arguments` or `parameters` (neither means `{}`), `"type": "function"`, and `id` or
    `tool_call_id`, a text that is not used; any other key fails.
    """

    def __init__(self) -> None:
        self.status = Status.READING
        self.begun = False
        self.name = ""
        self._step: _Step = self._open_brace
        self._keys: list[str] = []
        self._token: list[str] = []  # the string or scalar being read
        self._text_reader = JsonString()
        self._arguments_reader = JsonStructure()
        self._arguments: list[str] = []
        self._rest: list[str] = []
        self._claimed = False  # all text read so far belongs to the call

    @property
    def rest(self) -> str:
        """Text that was read but belongs neither to a call that has begun nor to its arguments."""
        return "".join(self._rest)

    def take(self) -> str:
        """The arguments that arrived since the last call of `take`; empty until the tool call has begun."""
        if not self.begun:
            return ""
        arguments = "".join(self._arguments)
        self._arguments.clear()
        return arguments

    def feed(self, text: str, start: int = 0) -> int:
        """Read text[start:] and return the position of the first character that was not read."""
        position = start
        while position < len(text) and self.status is Status.READING:
            end = self._step(text, position)
            self._rest.append(text[position:end])
            if self._claimed:
                self._rest.clear()
                self._claimed = False
            position = end
        return position

    # Each step reads from a position and returns the position where it stopped.

    def _open_brace(self, text: str, position: int) -> int:
        return self._expect(text, position, {"{": self._next_key})

    def _next_key(self, text: str, position: int) -> int:
        return self._expect(text, position, {'"': self._key})

    def _key(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if self._text_reader.complete:
            self._accept_key()
        return position

    def _accept_key(self) -> None:
        key = self._load_token()
        same = next((keys for keys in _KEYS if key in keys), None)
        if same is None or not same.isdisjoint(self._keys):
            self.status = Status.FAILED
        else:
            self._keys.append(key)
            self._step = self._colon

    def _colon(self, text: str, position: int) -> int:
        return self._expect(
            text, position, {":": self._argument_value if self._keys[-1] in ARGUMENT_KEYS else self._value}
        )

    def _value(self, text: str, position: int) -> int:
        return self._expect(text, position, {'"': self._text})

    def _text(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if self._text_reader.complete:
            self._accept_text(self._load_token())
        return position

    def _accept_text(self, value: str) -> None:
        self._step = self._after_value
        key = self._keys[-1]
        if key in _UNUSED_KEYS:
            return
        if key == "type":
            if value != "function":
                self.status = Status.FAILED
        elif not value:
            self.status = Status.FAILED
        else:
            self.name = value
            if not ARGUMENT_KEYS.isdisjoint(self._keys):
                self._begin()

    def _argument_value(self, text: str, position: int) -> int:
        position = self._skip_space(text, position)
        if position == len(text):
            return position
        if text[position] == '"':
            return self._expect(text, position, {'"': self._string_arguments})
        if text[position] in CLOSERS:
            self._step = self._structure
            if self.name:
                self._begin()
        else:
            self._token = []
            self._step = self._scalar
        return position

    def _string_arguments(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if self._text_reader.complete:
            self._accept_arguments(lambda: unquoted_object("".join(self._token)))
        return position

    def _scalar(self, text: str, position: int) -> int:
        found = _SCALAR_END.search(text, position)
        end = found.start() if found else len(text)
        self._token.append(text[position:end])
        if found:
            self._accept_arguments(self._checked_scalar)
        return end

    def _checked_scalar(self) -> str:
        scalar = "".join(self._token)
        load(scalar)
        return scalar

    def _accept_arguments(self, read: Callable[[], str]) -> None:
        try:
            self._arguments.append(read())
        except ValueError:
            self.status = Status.FAILED
            return
        self._step = self._after_value
        if self.name:
            self._begin()

    def _structure(self, text: str, start: int) -> int:
        reader = self._arguments_reader
        position = reader.feed(text, start)
        if reader.broken:
            self.status = Status.BROKEN if self.begun else Status.FAILED
        elif reader.complete:
            self._step = self._after_value
        self._arguments.append(text[start:position])
        self._claimed = self.begun
        return position

    def _after_value(self, text: str, position: int) -> int:
        position = self._skip_space(text, position)
        if position < len(text) and text[position] == "}" and self.name:
            if not self.begun:
                self._arguments.append("{}")
                self._begin()
            self.status = Status.DONE
            self._claimed = True
            return position + 1
        return self._expect(text, position, {",": self._next_key})

    def _begin(self) -> None:
        self.begun = self._claimed = True

    def _expect(self, text: str, position: int, steps: Mapping[str, _Step]) -> int:
        """Skip whitespace and choose the next step by the character after it; fail if there is none for it."""
        position = self._skip_space(text, position)
        if position == len(text):
            return position
        step = steps.get(text[position])
        if step is None:
            self.status = Status.FAILED
            return position
        self._step = step
        if text[position] == '"':
            self._token, self._text_reader = ['"'], JsonString()
        return position + 1

    def _skip_space(self, text: str, position: int) -> int:
        found = _SPACE.match(text, position)
        return found.end() if found else position

    def _string(self, text: str, position: int) -> int:
        end = self._text_reader.feed(text, position)
        self._token.append(text[position:end])
        return end

    def _load_token(self) -> str:
        """The string just read; empty if it is not JSON or cannot be UTF-8."""
        try:
            value = load("".join(self._token))
        except ValueError:
            return ""
        return value if isinstance(value, str) and is_text(value) else ""
