# SPDX-License-Identifier: Apache-2.0
"""Reading one `{"name": ..., "arguments": ...}` object while it is being written."""

import re
from collections.abc import Callable, Mapping
from enum import Enum, auto

from families.parsers.json_text import is_text, load, unquoted_object

ARGUMENT_KEYS = frozenset({"arguments", "parameters"})

_SPACE = re.compile(r"[ \t\r\n]*")
_IN_STRING = re.compile(r'["\\]')
# `<` outside a string is no JSON; it may begin the tag that ends a call whose JSON was left unfinished.
_IN_STRUCTURE = re.compile(r'["{}\[\]<]')
_SCALAR_END = re.compile(r"[ \t\r\n,}]")
_CLOSERS = {"{": "}", "[": "]"}

_Step = Callable[[str, int], int]


class Status(Enum):
    READING = auto()
    DONE = auto()  # the object is complete, and a call
    FAILED = auto()  # not a call, or something behind the arguments that belongs to none
    BROKEN = auto()  # arguments that have begun turned out not to be JSON


class CallReader:
    """Reads a call object from text in pieces, every character once.

    A call has begun once its name is known and its arguments are there; from then on they come as they arrive,
    byte for byte. Arguments written as a JSON string are read to their end, since a JSON object may be inside.
    Within arguments only strings and brackets are followed: other errors are left for the client to see.

    Keys: `name`, `arguments` (or `parameters`; none means `{}`) and `"type": "function"`; any other fails.
    """

    def __init__(self) -> None:
        self.status = Status.READING
        self.begun = False
        self.name = ""
        self._step: _Step = self._open_brace
        self._keys: list[str] = []
        self._token: list[str] = []  # the string or scalar being read
        self._in_string = self._escaped = False
        self._closers: list[str] = []  # of the brackets open in the arguments
        self._arguments: list[str] = []
        self._rest: list[str] = []
        self._claimed = False  # all that was read is accounted for by the call

    @property
    def rest(self) -> str:
        """What was read and belongs neither to a call that has begun nor to its arguments."""
        return "".join(self._rest)

    def take(self) -> str:
        """The arguments that arrived since the last take; empty until the call has begun."""
        if not self.begun:
            return ""
        arguments = "".join(self._arguments)
        self._arguments.clear()
        return arguments

    def feed(self, text: str, start: int = 0) -> int:
        """Read text[start:]; returns the position of the first character that was not read."""
        position = start
        while position < len(text) and self.status is Status.READING:
            end = self._step(text, position)
            self._rest.append(text[position:end])
            if self._claimed:
                self._rest.clear()
                self._claimed = False
            position = end
        return position

    # Each step reads from a position on and returns where it stopped.

    def _open_brace(self, text: str, position: int) -> int:
        return self._want(text, position, {"{": self._next_key})

    def _next_key(self, text: str, position: int) -> int:
        return self._want(text, position, {'"': self._key})

    def _key(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if not self._in_string:
            self._accept_key()
        return position

    def _accept_key(self) -> None:
        key = self._load_token()
        seen = ARGUMENT_KEYS if key in ARGUMENT_KEYS else {key}
        if key not in {"name", "type", *ARGUMENT_KEYS} or not seen.isdisjoint(self._keys):
            self.status = Status.FAILED
        else:
            self._keys.append(key)
            self._step = self._colon

    def _colon(self, text: str, position: int) -> int:
        return self._want(
            text, position, {":": self._argument_value if self._keys[-1] in ARGUMENT_KEYS else self._value}
        )

    def _value(self, text: str, position: int) -> int:
        return self._want(text, position, {'"': self._text})

    def _text(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if not self._in_string:
            self._accept_text(self._load_token())
        return position

    def _accept_text(self, value: str) -> None:
        self._step = self._behind_value
        if self._keys[-1] == "type":
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
            return self._want(text, position, {'"': self._string_arguments})
        if text[position] in _CLOSERS:
            self._step = self._structure
            if self.name:
                self._begin()
        else:
            self._token = []
            self._step = self._scalar
        return position

    def _string_arguments(self, text: str, position: int) -> int:
        position = self._string(text, position)
        if not self._in_string:
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
        self._step = self._behind_value
        if self.name:
            self._begin()

    def _structure(self, text: str, start: int) -> int:
        position = start
        while position < len(text) and self.status is Status.READING:
            if self._in_string:
                position = self._skip_string(text, position)
                continue
            found = _IN_STRUCTURE.search(text, position)
            if found is None:
                position = len(text)
                break
            position = found.start()
            if not self._turn(found.group()):
                self.status = Status.BROKEN if self.begun else Status.FAILED
                break
            position += 1
            if not self._closers and not self._in_string:
                self._step = self._behind_value
                break
        self._arguments.append(text[start:position])
        self._claimed = self.begun
        return position

    def _turn(self, char: str) -> bool:
        """Follow a quote or bracket; False where it cannot stand here."""
        if char == '"':
            self._in_string = True
        elif char in _CLOSERS:
            self._closers.append(_CLOSERS[char])
        else:
            return self._closers.pop() == char
        return True

    def _behind_value(self, text: str, position: int) -> int:
        position = self._skip_space(text, position)
        if position < len(text) and text[position] == "}" and self.name:
            if not self.begun:
                self._arguments.append("{}")
                self._begin()
            self.status = Status.DONE
            self._claimed = True
            return position + 1
        return self._want(text, position, {",": self._next_key})

    def _begin(self) -> None:
        self.begun = self._claimed = True

    def _want(self, text: str, position: int, steps: Mapping[str, _Step]) -> int:
        """Skip whitespace and go on with the step of the character behind it; fail where it has none."""
        position = self._skip_space(text, position)
        if position == len(text):
            return position
        step = steps.get(text[position])
        if step is None:
            self.status = Status.FAILED
            return position
        self._step = step
        if text[position] == '"':
            self._token, self._in_string = ['"'], True
        return position + 1

    def _skip_space(self, text: str, position: int) -> int:
        found = _SPACE.match(text, position)
        return found.end() if found else position

    def _string(self, text: str, position: int) -> int:
        end = position
        while end < len(text) and self._in_string:
            end = self._skip_string(text, end)
        self._token.append(text[position:end])
        return end

    def _skip_string(self, text: str, position: int) -> int:
        """Go on to behind the next escape or the closing quote."""
        if self._escaped:
            self._escaped = False
            return position + 1
        found = _IN_STRING.search(text, position)
        if found is None:
            return len(text)
        if found.group() == '"':
            self._in_string = False
        else:
            self._escaped = True
        return found.end()

    def _load_token(self) -> str:
        """The string read; empty where it is no JSON or not fit for UTF-8."""
        try:
            value = load("".join(self._token))
        except ValueError:
            return ""
        return value if isinstance(value, str) and is_text(value) else ""
