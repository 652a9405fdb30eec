# SPDX-License-Identifier: Apache-2.0
"""JSON values as JSON Schema sees them, and the values of keywords for what follows two schemas."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from math import inf
from typing import Any


def distinct_types(kinds: Any) -> list[str]:
    """The value of `type` as a list without one that another includes."""
    found = list(dict.fromkeys(kinds if isinstance(kinds, list) else [kinds]))
    return [kind for kind in found if kind != "integer" or "number" not in found]


def _common_types(first: list[str], second: list[str]) -> list[str]:
    both = [kind for kind in first if kind in second]
    integers = "integer" not in both and {"integer", "number"} <= {*first, *second}
    return [*both, "integer"] if integers and "number" not in both else both


def common_values(first: list[Any], second: list[Any]) -> list[Any]:
    """The values of the first list that are in the second too."""
    known = set(map(key, second))
    return [one for one in first if key(one) in known]


def _all_names(first: list[str], second: list[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


# Keywords -> their value for what follows both of two schemas.
MERGE_VALUES: Mapping[str, Callable[[Any, Any], Any]] = {
    **dict.fromkeys(("minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"), max),
    **dict.fromkeys(("maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum"), min),
    "type": _common_types,
    "enum": common_values,
    "required": _all_names,
}


def key(value: Any) -> Hashable:
    """What is the same for equal JSON values only: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, list):
        return "array", tuple(map(key, value))
    if isinstance(value, dict):
        return "object", frozenset((name, key(part)) for name, part in value.items())
    return "boolean" if isinstance(value, bool) else "scalar", value


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """All JSON objects in a value, itself included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def is_of_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and (isinstance(value, int) or value.is_integer()))
    if isinstance(value, str):
        return kind == "string"
    return kind == ("array" if isinstance(value, list) else "object")


def within(value: float, schema: Mapping[str, Any], low: str, high: str) -> bool:
    if low == "minimum" and not schema.get("exclusiveMinimum", -inf) < value < schema.get("exclusiveMaximum", inf):
        return False
    return bool(schema.get(low, -inf) <= value <= schema.get(high, inf))


def needs_range(value: Any) -> bool:
    if not isinstance(value, float) or value.is_integer():
        return False
    return format(value, ".17g") != repr(value) and round(value, 6) == value and abs(value) < 2**31
