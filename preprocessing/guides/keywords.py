# SPDX-License-Identifier: Apache-2.0
"""The keywords of JSON schemas: which are enforced, which are refused, and what their values must be.

Keywords in neither table say nothing about what is valid (`title`, `default`, unknown ones) and are ignored, as
JSON Schema says.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from common.checks import PositionError, expect, expect_one_of, shorten

Schema = dict[str, Any]

# A keyword of our own, which tells two parts apart that xgrammar would take for the same.
MARK = "x-part"

JSON_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

# Enforced keywords -> the type of the values that they apply to; None for all.
ENFORCED: Mapping[str, str | None] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "number"),
    **dict.fromkeys(("minLength", "maxLength", "pattern", "format"), "string"),
    **dict.fromkeys(("items", "prefixItems", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("properties", "required", "additionalProperties", "patternProperties", "propertyNames"), "object"),
    **dict.fromkeys(("minProperties", "maxProperties"), "object"),
    **dict.fromkeys(("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")),
}
# Keywords that nothing enforces -> the type of the values that they apply to; None for all.
REFUSED: Mapping[str, str | None] = {
    **dict.fromkeys(("uniqueItems", "contains", "unevaluatedItems"), "array"),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"), "object"),
    **dict.fromkeys(("not", "if", "$dynamicRef", "$recursiveRef")),
}

COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SCHEMA_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
SCHEMAS = ("items", "additionalProperties", "propertyNames", "contains", "not", "if", "then", "else")
_TEXTS = ("pattern", "format", "$ref", "$id", "$anchor", "$dynamicRef", "$recursiveRef")


def check_values(schema: Schema, where: str) -> None:
    """Raise RequestError for a keyword whose value is not what JSON Schema says."""
    for name in schema.keys() & _CHECKS.keys():
        _CHECKS[name](schema[name], f"{where}.{name}")


def _check_count(value: Any, where: str) -> None:
    _check_number(value, where)
    if value < 0 or value != int(value):
        raise PositionError(where, "must be a whole number that is not negative")
    if value >= 2**31:
        raise PositionError(where, "is too large")


_LARGEST = 1e308


def _check_number(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PositionError(where, "must be a number")
    # Compared first, because a larger integer cannot be made a float.
    if not abs(value) <= _LARGEST:
        raise PositionError(where, "is too large or not finite")


def _check_multiple(value: Any, where: str) -> None:
    _check_number(value, where)
    if value <= 0:
        raise PositionError(where, "must be greater than 0")


def _check_type(value: Any, where: str) -> None:
    for one in value if isinstance(value, list) else [value]:
        expect_one_of(one, JSON_TYPES, where)
    if value == []:
        raise PositionError(where, "must not be empty")


def _check_names(value: Any, where: str) -> None:
    for n, name in enumerate(expect(value, list, where)):
        expect(name, str, f"{where}[{n}]")


def _check_schema(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        expect(value, dict, where)


def _check_schemas(value: Any, where: str) -> None:
    for name, part in expect(value, dict, where).items():
        _check_schema(part, f"{where}.{shorten(name, 40)}")


def _check_list(value: Any, where: str) -> None:
    for n, part in enumerate(expect(value, list, where)):
        _check_schema(part, f"{where}[{n}]")


def _check_filled_list(value: Any, where: str) -> None:
    _check_list(value, where)
    if not value:
        raise PositionError(where, "must not be empty")


def _check_items(value: Any, where: str) -> None:
    (_check_list if isinstance(value, list) else _check_schema)(value, where)


def _check_enum(value: Any, where: str) -> None:
    if not expect(value, list, where):
        raise PositionError(where, "must not be empty")
    _check_const(value, where)


def _check_const(value: Any, where: str) -> None:
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        raise PositionError(where, "has a number that is not finite") from None


def _check_dependencies(value: Any, where: str) -> None:
    for name, part in expect(value, dict, where).items():
        (_check_names if isinstance(part, list) else _check_schema)(part, f"{where}.{shorten(name, 40)}")


def _check_text(value: Any, where: str) -> None:
    expect(value, str, where)


def _check_bool(value: Any, where: str) -> None:
    expect(value, bool, where)


_CHECKS: Mapping[str, Callable[[Any, str], None]] = {
    **dict.fromkeys(COUNTS, _check_count),
    **dict.fromkeys(("minContains", "maxContains"), _check_count),
    **dict.fromkeys(_BOUNDS, _check_number),
    **dict.fromkeys(_TEXTS, _check_text),
    **dict.fromkeys(SCHEMAS, _check_schema),
    **dict.fromkeys(("additionalItems", "unevaluatedItems", "unevaluatedProperties"), _check_schema),
    **dict.fromkeys(SCHEMA_MAPS, _check_schemas),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _check_filled_list),
    **dict.fromkeys(("dependentRequired", "dependencies"), _check_dependencies),
    "prefixItems": _check_list,
    "items": _check_items,
    "multipleOf": _check_multiple,
    "type": _check_type,
    "required": _check_names,
    "enum": _check_enum,
    "const": _check_const,
    "uniqueItems": _check_bool,
}


def says_nothing(name: str, schema: Schema) -> bool:
    """Whether a keyword of REFUSED says nothing."""
    value = schema[name]
    if name == "uniqueItems":
        return value is False or schema.get("maxItems", 2) <= 1
    if name == "contains":
        return schema.get("minContains") == 0 and "maxContains" not in schema
    if name in ("dependentRequired", "dependentSchemas", "dependencies"):
        required = schema.get("required", ())
        return all(
            all(one in required for one in part) if isinstance(part, list) else part in (True, {})
            for part in value.values()
        )
    if name == "if":
        return "then" not in schema and "else" not in schema
    return value is False if name == "not" else value is True
