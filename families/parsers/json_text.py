# SPDX-License-Identifier: Apache-2.0
"""Strict JSON for text written by models."""

import json
from typing import Any, NoReturn


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def load(text: str) -> Any:
    """The value of a JSON text, with all numbers as floats.

    Raises ValueError for anything else, including NaN, Infinity, and nesting too deep to read.
    """
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=float)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def is_object(text: str) -> bool:
    """Whether the text is a JSON object."""
    try:
        return isinstance(load(text), dict)
    except ValueError:
        return False


def is_text(value: object) -> bool:
    """Whether the value is a string that UTF-8 can encode: JSON escapes can spell half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def unquoted_object(literal: str) -> str:
    """The JSON object inside a JSON string literal, or the literal itself if there is none.

    Raises ValueError if the literal is not a JSON string.
    """
    inner = load(literal)
    return inner if is_text(inner) and is_object(inner) else literal
