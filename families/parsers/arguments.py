# SPDX-License-Identifier: Apache-2.0
"""The JSON text of arguments that a model writes as key and value, outside JSON."""

import ast
import json
import warnings
from collections.abc import Callable

from families.parsers.json_text import is_text, load

_PYTHON_WORDS = {"True": "true", "False": "false", "None": "null"}


def quoted(text: str) -> str:
    """A text as a JSON string."""
    return json.dumps(text, ensure_ascii=False)


def json_value(text: str) -> str:
    """The JSON text of a value: the text itself if it is JSON, Python's literals translated, else a JSON string."""
    stripped = text.strip()
    try:
        load(stripped)
        return stripped
    except ValueError:
        pass
    if stripped in _PYTHON_WORDS:
        return _PYTHON_WORDS[stripped]
    if stripped[:1] in ("[", "{", "("):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated escapes
                encoded = json.dumps(ast.literal_eval(stripped), ensure_ascii=False, allow_nan=False)
            if is_text(encoded):
                return encoded
        except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
            pass
    return quoted(text)


def xml_value(prefix: str) -> Callable[[str], str]:
    """A reader of values whose objects and arrays are nested elements, as `<key>value</key>` and `<item>value</item>`.

    prefix: the text before each tag.
    """

    def read(text: str) -> str:
        try:
            return _elements(text, prefix)
        except (ValueError, RecursionError):
            return quoted(text)

    return read


def _elements(text: str, prefix: str) -> str:
    """The JSON text of nested elements, or of a value without any. Raises ValueError if tags do not match.

    Values are not decoded: JSON can write numbers and halves of surrogate pairs that Python could not write again.
    """
    start = prefix + "<"
    if not text.lstrip().startswith(start):
        return json_value(text)
    items: list[tuple[str, str]] = []
    rest = text.strip()
    while rest:
        if not rest.startswith(start):
            raise ValueError("text between elements")
        key, mark, rest = rest[len(start) :].partition(">")
        inner, closed, rest = _closed(rest, f"{start}{key}>", f"{prefix}</{key}>")
        if not mark or not closed:
            raise ValueError("an element is not closed")
        items.append((key, _elements(inner, prefix)))
        rest = rest.lstrip()
    if all(key == "item" for key, _ in items):
        return "[" + ", ".join(value for _, value in items) + "]"
    return "{" + ", ".join(f"{quoted(key)}: {value}" for key, value in dict(items).items()) + "}"


def _closed(text: str, begin: str, end: str) -> tuple[str, bool, str]:
    """The text up to the `end` that closes an element, whether there is one, and the text after it."""
    depth, position = 1, 0
    while depth:
        at = text.find(end, position)
        if at < 0:
            return text, False, ""
        depth += text.count(begin, position, at) - 1
        position = at + len(end)
    return text[: position - len(end)], True, text[position:]
