# SPDX-License-Identifier: Apache-2.0
"""Calls of Gemma 4: `call:name{key:value,...}`, with text between `<|"|>` and keys without quotes."""

import re
from typing import Any

from families.parsers.arguments import quoted
from families.parsers.events import ToolCall

QUOTE = '<|"|>'

_NAME = re.compile(r"\s*call:\s*([\w.-]+)\s*(?=\{)")
_KEY = re.compile(r"([^:{}\[\],]+):")
_BARE = re.compile(r"[^,{}\[\]]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": "true", "false": "false", "null": "null", "None": "null"}
_SPACE = re.compile(r"\s*")
_DEEPEST = 100


def read_gemma4_calls(text: str) -> list[ToolCall] | None:
    """The calls of a complete text, one or several; None if it is anything else."""
    calls, position = [], 0
    text = text.rstrip()
    while position < len(text):
        found = _NAME.match(text, position)
        if not found:
            return None
        try:
            arguments, position = _object(text, found.end(), 0)
        except ValueError:
            return None
        calls.append(ToolCall(found[1], arguments))
    return calls or None


def _value(text: str, position: int, depth: int) -> tuple[str, int]:
    """The JSON text of the value at a position, and the position after it; raises ValueError if there is none."""
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    position = _skip(text, position)
    if text.startswith(QUOTE, position):
        string, position = _string(text, position)
        return quoted(string), position
    if text.startswith("{", position):
        return _object(text, position, depth)
    if text.startswith("[", position):
        return _array(text, position, depth)
    found: Any = _BARE.match(text, position)
    word = found[0].strip()
    value = word if _NUMBER.fullmatch(word) else _WORDS.get(word) or quoted(word)
    return value, found.end()


def _string(text: str, position: int) -> tuple[str, int]:
    start = position + len(QUOTE)
    end = text.find(QUOTE, start)
    if end < 0:
        raise ValueError("a text is not closed")
    return text[start:end], end + len(QUOTE)


def _object(text: str, position: int, depth: int) -> tuple[str, int]:
    items = []
    position = _skip(text, position + 1)
    while not text.startswith("}", position):
        if text.startswith(QUOTE, position):
            key, position = _string(text, position)
            position = _expect(text, position, ":")
        else:
            found = _KEY.match(text, position)
            if not found:
                raise ValueError("a key is missing")
            key, position = found[1].strip().strip('"'), found.end()
        value, position = _value(text, position, depth + 1)
        items.append(f"{quoted(key)}: {value}")
        position = _after_item(text, position, "}")
    return "{" + ", ".join(items) + "}", position + 1


def _array(text: str, position: int, depth: int) -> tuple[str, int]:
    items = []
    position = _skip(text, position + 1)
    while not text.startswith("]", position):
        value, position = _value(text, position, depth + 1)
        items.append(value)
        position = _after_item(text, position, "]")
    return "[" + ", ".join(items) + "]", position + 1


def _after_item(text: str, position: int, end: str) -> int:
    position = _skip(text, position)
    if text.startswith(",", position):
        return _skip(text, position + 1)
    if not text.startswith(end, position):
        raise ValueError(f"{end} is missing")
    return position


def _expect(text: str, position: int, char: str) -> int:
    position = _skip(text, position)
    if not text.startswith(char, position):
        raise ValueError(f"{char} is missing")
    return position + 1


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position
