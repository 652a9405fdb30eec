# SPDX-License-Identifier: Apache-2.0
"""The arguments of earlier tool calls, as the objects that chat templates read.

A model may write no JSON, or be cut off in the middle, and a client sends back what it received. No history may be
refused for that, or its conversation could never go on.
"""

import json
import re
from typing import Any

from common.checks import MAX_DEPTH, PositionError, check_tree
from common.errors import RequestError

# The key under which arguments that are no object are kept.
NO_OBJECT = "arguments"

_TOKEN = re.compile(r'["{}\[\],]')
_IN_STRING = re.compile(r'["\\]')
_CLOSERS = {"{": "}", "[": "]"}
# The beginning of an escape sequence that was cut off.
_CUT_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{0,3})?")
# The beginning of a member or an element: a comma, a key, and a number or word, each whole or not.
# Its repetitions are possessive: blanks that could belong to several of them would take cubic time.
_CUT_ITEM = re.compile(r'\s*+,?\s*+("([^"\\]|\\.)*+("|\\?$)\s*+:?\s*+)?+[\w.+-]*+\s*+', re.DOTALL)


def read_arguments(value: Any, where: str) -> dict[str, Any]:
    """The arguments of one call as an object: those of a cut text up to the cut, {} for null and empty values.

    Anything else that is no object becomes {"arguments": ...}. Raises PositionError if `value` is neither a text, an
    object, an array nor null.
    """
    if isinstance(value, str):
        value = _parse(value) if value.strip() else None
    elif not isinstance(value, dict | list | None):
        raise PositionError(where, "must be a string")
    if isinstance(value, dict):
        return value
    return {} if value is None or value == [] else {NO_OBJECT: value}


def _parse(text: str) -> Any:
    """The value of a JSON text, whole or cut; the text itself if it is neither."""
    for complete in (str, _completed):
        try:
            value = _valid(json.loads(complete(text)))
            check_tree(value, NO_OBJECT)
        except (ValueError, RecursionError, RequestError):
            continue
        # Some models write the object as a JSON string.
        if isinstance(value, str) and value.lstrip().startswith("{") and value != text:
            inner = _parse(value)
            return inner if isinstance(inner, dict) else value
        return value
    return text


def _completed(text: str) -> str:
    """A text of JSON that was cut, with what is missing at its end; a member or element without a value is dropped.

    Raises ValueError if the text is no beginning of JSON.
    """
    closers: list[str] = []
    kept, kept_closers = 0, ""  # the last position at which the text could be closed, and what closes it there
    position, escape, in_string = 0, 0, False
    while found := (_IN_STRING if in_string else _TOKEN).search(text, position):
        char, position = found.group(), found.end()
        if in_string:
            in_string = char == "\\"
            if in_string:
                escape, position = found.start(), position + 1
            continue
        if char == '"':
            in_string = True
        elif char in _CLOSERS:
            closers.append(_CLOSERS[char])
            if len(closers) > MAX_DEPTH:
                raise ValueError("nested too deep")
            kept, kept_closers = position, "".join(reversed(closers))
        elif char == ",":
            kept, kept_closers = found.start(), "".join(reversed(closers))
        elif not closers or closers.pop() != char:
            raise ValueError("brackets do not match")
    ending = "".join(reversed(closers))
    end = escape if in_string and _CUT_ESCAPE.fullmatch(text, escape) else len(text)
    whole = text[:end] + ('"' if in_string else "") + ending
    try:
        json.loads(whole)
    except ValueError:
        if not closers or not _CUT_ITEM.fullmatch(text, kept):
            raise
        return text[:kept] + kept_closers
    return whole


def _valid(value: Any) -> Any:
    """`value` with U+FFFD for lone surrogates, such as half an emoji that was cut."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_valid(key): _valid(item) for key, item in value.items()}
    return [_valid(item) for item in value] if isinstance(value, list) else value
