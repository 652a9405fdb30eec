# SPDX-License-Identifier: Apache-2.0
"""Incremental reader of one `{"name": ..., "arguments": ...}` object."""

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto

from families.parsers.json_structure import CLOSERS, JsonString, JsonStructure
from families.parsers.json_text import is_text, load, unquoted_object

NAME_KEYS = frozenset({"name", "tool_name"})
ARGUMENT_KEYS = frozenset({"arguments", "parameters"})
# Keys whose value is not used: a number of the call, which is unique within its answer only.
_UNUSED_KEYS = frozenset({"id", "tool_call_id"})

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

    Keys: `name` or `tool_name`, `arguments` or `parameters`, `"type": "function"`, and `id` or `tool_call_id`, which is
    not used. Neither of the second means `{}`, unless there are other keys too: such an object is no call. In a call
    other keys are skipped.

    strict: nothing but its form tells a call from any other object, so one with other keys, or an id that is no text,
    is no call.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self.status = Status.READING
        self.begun = False
        self.name = ""
        self._step: _Step = self._open_brace
        self._keys: list[str] = []
        self._token: list[str] = []  # the string or scalar being read
        self._text_reader = JsonString()
        self._arguments_reader = JsonStructure()
        self._arguments: list[str] = []
        self._skipped = JsonStructure()  # a value that is not used
        self._others = False  # there are keys that calls do not have
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
        same = next((keys for keys in (NAME_KEYS, ARGUMENT_KEYS) if key in keys), frozenset())
        if key is None or (not self.begun and not same.isdisjoint(self._keys)):
            self.status = Status.FAILED
        else:
            self._keys.append(key)
            self._step = self._colon

    def _colon(self, text: str, position: int) -> int:
        key, step = self._keys[-1], self._unused_value
        if not self.begun and key in NAME_KEYS:  # What follows the beginning cannot change the call.
            step = self._value
        elif not self.begun and key in ARGUMENT_KEYS:
            step = self._argument_value
        return self._expect(text, position, {":": step})

    def _value(self, text: str, position: int) -> int:
        return self._expect(text, position, {'"': self._text})

    def _text(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if self._text_reader.complete:
            self._accept_name(self._load_token())
        return position

    def _accept_name(self, value: str | None) -> None:
        self._step = self._after_value
        if not value or not is_text(value):
            self.status = Status.FAILED
        else:
            self.name = value
            if not ARGUMENT_KEYS.isdisjoint(self._keys):
                self._begin()

    def _unused_value(self, text: str, position: int) -> int:
        position = self._skip_space(text, position)
        if position == len(text):
            return position
        if text[position] == '"':
            return self._expect(text, position, {'"': self._unused_text})
        if self._strict:
            self.status = Status.FAILED
            return position
        self._token, self._skipped = [], JsonStructure()
        self._step = self._unused_structure if text[position] in CLOSERS else self._unused_scalar
        return position

    def _unused_text(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if self._text_reader.complete:
            value = self._load_token()
            if value is None:
                self.status = Status.FAILED
            else:
                self._end_unused(value)
        return position

    def _unused_structure(self, text: str, start: int) -> int:
        position = self._skipped.feed(text, start)
        if self._skipped.broken:
            self.status = Status.FAILED
        elif self._skipped.complete:
            self._end_unused()
        return position

    def _unused_scalar(self, text: str, position: int) -> int:
        return self._read_scalar(text, position, self._accept_unused_scalar)

    def _accept_unused_scalar(self) -> None:
        try:
            load("".join(self._token))
        except ValueError:
            self.status = Status.FAILED
        else:
            self._end_unused()

    def _end_unused(self, value: str = "") -> None:
        key = self._keys[-1]
        known = key in _UNUSED_KEYS or (key, value) == ("type", "function")
        self._others = self._others or not known
        if self._strict and not known:
            self.status = Status.FAILED
        self._step = self._after_value

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
        return self._read_scalar(text, position, lambda: self._accept_arguments(self._checked_scalar))

    def _read_scalar(self, text: str, position: int, accept: Callable[[], None]) -> int:
        found = _SCALAR_END.search(text, position)
        end = found.start() if found else len(text)
        self._token.append(text[position:end])
        if found:
            accept()
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
                if self._others:
                    self.status = Status.FAILED
                    return position
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

    def _load_token(self) -> str | None:
        """The string just read; None if it is not JSON."""
        try:
            value = load("".join(self._token))
        except ValueError:
            return None
        return value if isinstance(value, str) else None
