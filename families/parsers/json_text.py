# SPDX-License-Identifier: Apache-2.0
"""Strict JSON, for text that models wrote."""

import json
from typing import Any, NoReturn


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def load(text: str) -> Any:
    """The value of a JSON text. Numbers come as floats: what counts is that they are numbers.

    Raises ValueError for anything else, NaN and Infinity, and nesting too deep to read included.
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
    """Whether the value is a string that UTF-8 can carry: escapes can spell half a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)


def unquoted_object(literal: str) -> str:
    """The JSON object inside a JSON string literal, or the literal itself where there is none.

    Raises ValueError where the literal is no JSON string.
    """
    inner = load(literal)
    return inner if is_text(inner) and is_object(inner) else literal
