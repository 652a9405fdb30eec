# SPDX-License-Identifier: Apache-2.0
"""Prepare a JSON schema for xgrammar: what it would pass over is written in another way, or refused with its path.

The same for response formats, structured outputs and the parameters of tools. Keywords that are in no table below say
nothing about what is valid (`title`, `default`, unknown ones) and are ignored, as JSON Schema says.
"""

from collections.abc import Mapping
from typing import Any

from common.checks import PositionError, expect, expect_one_of, shorten

JSON_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

# Enforced keywords that apply to values of one type only -> that type.
ENFORCED: Mapping[str, str] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
    **dict.fromkeys(("minLength", "maxLength", "pattern"), "string"),
    **dict.fromkeys(("items", "prefixItems", "additionalItems", "minItems", "maxItems", "unevaluatedItems"), "array"),
    **dict.fromkeys(
        (
            *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
            *("minProperties", "maxProperties", "unevaluatedProperties"),
        ),
        "object",
    ),
}
# Keywords that decide alone: xgrammar passes over others beside them.
ALONE = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
# Refused keywords -> the value that changes nothing, if there is one.
REFUSED: Mapping[str, Any] = {
    **dict.fromkeys(("multipleOf", "contains", "minContains", "maxContains", "not", "if", "then", "else")),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef")),
    "uniqueItems": False,
}
# Formats that xgrammar enforces; others are annotations.
FORMATS = frozenset(
    (
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    )
)

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_RANGES = (*zip(_COUNTS[::2], _COUNTS[1::2], strict=True), ("minimum", "maximum"))
_OBJECTS = ("properties", "patternProperties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_KINDS: Mapping[str, type] = {
    **dict.fromkeys(_OBJECTS, dict),
    **dict.fromkeys((*_LISTS, "enum", "required"), list),
    **dict.fromkeys(("pattern", "format", "$ref"), str),
}


def prepare_schema(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """The schema as xgrammar enforces it; every answer that it allows is valid by the given schema.

    Raises RequestError naming the position of a part that cannot be enforced.
    """
    prepared = _Preparation(schema, where).schema(schema, where)
    assert isinstance(prepared, dict)  # nosec B101 # narrows a type, checks no input
    return prepared


class _Preparation:
    """One schema as a whole, in which references are looked up."""

    def __init__(self, root: dict[str, Any], where: str) -> None:
        self._root = root
        self._where = where

    def schema(self, value: Any, where: str) -> dict[str, Any] | bool:
        if value is True:
            return True
        if value is False:
            raise PositionError(where, "allows no value")
        schema = dict(expect(value, dict, where))
        _check_values(schema, where)
        schema = _merged(schema, where)
        _refuse(schema, where)
        if "$ref" in schema:
            self._check_reference(schema["$ref"], where)
        _infer_type(schema, where)
        _check_alone(schema, where)
        _strings(schema, where)
        _arrays(schema, where)
        _objects(schema, where)
        return self._parts(schema, where)

    def _parts(self, schema: dict[str, Any], where: str) -> dict[str, Any]:
        """The schema with its subschemas prepared."""
        for name in _OBJECTS:
            if name in schema:
                parts = schema[name].items()
                schema[name] = {key: self.schema(part, f"{where}.{name}.{shorten(key, 40)}") for key, part in parts}
        for name in _LISTS:
            if name in schema:
                schema[name] = [self.schema(part, f"{where}.{name}[{n}]") for n, part in enumerate(schema[name])]
        for name in ("items", "additionalProperties", "propertyNames"):
            if name in schema and schema[name] is not False:
                schema[name] = self.schema(schema[name], f"{where}.{name}")
        return schema

    def _check_reference(self, reference: str, where: str) -> None:
        seen: set[str] = set()
        while reference not in seen:
            seen.add(reference)
            target = self._target(reference, where)
            if not isinstance(target, dict) or "$ref" not in target:
                return
            reference = expect(target["$ref"], str, where)
        raise PositionError(where, f"has a $ref that leads to itself: '{shorten(reference)}'")

    def _target(self, reference: str, where: str) -> Any:
        if reference != "#" and not reference.startswith("#/"):
            raise PositionError(where, f"has a $ref to outside of the schema: '{shorten(reference)}'")
        target: Any = self._root
        for name in reference.split("/")[1:]:
            if isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
                target = target[int(name[:9])]
            elif isinstance(target, dict) and name in target:
                target = target[name]
            else:
                raise PositionError(where, f"has a $ref to nothing: '{shorten(reference)}'")
        return target


def _check_values(schema: dict[str, Any], where: str) -> None:
    """Raise RequestError for a keyword whose value has the wrong type, and for ranges without a value."""
    for name, kind in _KINDS.items():
        if name in schema:
            expect(schema[name], kind, f"{where}.{name}")
    for name in (*_COUNTS, *_BOUNDS):
        # The boolean exclusiveMinimum is that of draft 4.
        if name in schema and (isinstance(schema[name], bool) or not isinstance(schema[name], int | float)):
            raise PositionError(f"{where}.{name}", "must be a number")
    for low, high in _RANGES:
        if low in schema and high in schema and schema[low] > schema[high]:
            raise PositionError(where, f"has a {low} above its {high}")
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        expect_one_of(kind, JSON_TYPES, f"{where}.type")


def _refuse(schema: dict[str, Any], where: str) -> None:
    """Raise RequestError for a keyword of REFUSED, and drop those that change nothing."""
    for name, harmless in REFUSED.items():
        # The harmless value goes too: vLLM refuses the keyword whatever its value.
        if name in schema and schema.pop(name) != harmless:
            raise PositionError(f"{where}.{name}", "cannot be enforced")
    for name in ("unevaluatedItems", "unevaluatedProperties"):
        if name in schema and not isinstance(schema[name], bool):
            raise PositionError(f"{where}.{name}", "cannot be enforced unless it is a boolean")


def _merged(schema: dict[str, Any], where: str) -> dict[str, Any]:
    """The schema with the parts of its `allOf` as its own keywords: xgrammar enforces only a single part, alone."""
    parts = schema.get("allOf")
    if parts is None:
        return schema
    merged: dict[str, Any] = {name: value for name, value in schema.items() if name != "allOf"}
    for group in (("properties", "patternProperties", "additionalProperties"), ("prefixItems", "items")):
        # The last of these is about what the others beside it leave, and would say something else about more of them.
        holders = [one for one in (merged, *parts) if isinstance(one, dict) and any(name in one for name in group)]
        if len(holders) > 1 and any(one.get(group[-1], True) is not True for one in holders):
            raise PositionError(f"{where}.allOf", f"cannot be enforced with {group[-1]} in one of several parts")
    for n, part in enumerate(parts):
        if part is True:
            continue
        _check_values(expect(part, dict, f"{where}.allOf[{n}]"), f"{where}.allOf[{n}]")
        for name, value in _merged(part, f"{where}.allOf[{n}]").items():
            if name not in merged or merged[name] == value or name in ("title", "description", "default"):
                merged.setdefault(name, value)
            elif name == "required":
                merged[name] = list(dict.fromkeys([*merged[name], *value]))
            elif name == "properties" and not any(value[key] != merged[name].get(key, value[key]) for key in value):
                merged[name] = merged[name] | value
            else:
                raise PositionError(f"{where}.allOf[{n}].{name}", "cannot be combined with that of another part")
    return merged


def _infer_type(schema: dict[str, Any], where: str) -> None:
    """Add the type that the keywords are about: without one xgrammar passes over them."""
    # xgrammar knows these in a subschema without a type, too.
    kinds = {ENFORCED[name] for name in schema if name in ENFORCED}
    if "type" in schema or not kinds or any(name in schema for name in ALONE):
        return
    if len(kinds) > 1:
        raise PositionError(where, "has keywords of several types and no type")
    schema["type"] = kinds.pop()


def _check_alone(schema: dict[str, Any], where: str) -> None:
    alone = [name for name in ALONE if name in schema]
    if not alone:
        return
    beside = [name for name in schema if name in ENFORCED or name in alone[1:]]
    if beside:
        raise PositionError(f"{where}.{beside[0]}", f"cannot be enforced beside {alone[0]}")
    types = _types(schema)
    if "enum" in schema and types:
        schema["enum"] = [value for value in schema["enum"] if any(_is(value, kind) for kind in types)]
    if "enum" in schema and not schema["enum"]:
        raise PositionError(f"{where}.enum", "has no value of the type" if types else "must not be empty")
    if "const" in schema and types and not any(_is(schema["const"], kind) for kind in types):
        raise PositionError(f"{where}.const", "is not of the type")
    if alone[0] in ("anyOf", "oneOf", "$ref") and types:
        _drop_implied_type(schema, alone[0], where)


def _drop_implied_type(schema: dict[str, Any], name: str, where: str) -> None:
    """Drop a `type` that every alternative has as well; raise RequestError for another one."""
    parts = schema[name] if isinstance(schema[name], list) else []
    if parts and all(isinstance(part, dict) and part.get("type") == schema["type"] for part in parts):
        del schema["type"]
        return
    raise PositionError(f"{where}.type", f"cannot be enforced beside {name}")


def _strings(schema: dict[str, Any], where: str) -> None:
    bounded = "minLength" in schema or "maxLength" in schema
    if bounded and "pattern" in schema:
        raise PositionError(f"{where}.pattern", "cannot be enforced together with minLength or maxLength")
    # A format is an annotation, a bound is not, and xgrammar enforces only one of them.
    if "format" in schema and (schema["format"] not in FORMATS or bounded or "pattern" in schema):
        del schema["format"]


def _arrays(schema: dict[str, Any], where: str) -> None:
    if "array" not in _types(schema):
        return
    if isinstance(schema.get("items"), list):  # Up to draft 2019-09.
        schema["prefixItems"] = schema.pop("items")
        schema["items"] = schema.pop("additionalItems", True)
    least, first = schema.get("minItems", 0), schema.get("prefixItems", [])
    closed = schema.get("items", schema.get("unevaluatedItems", True)) is False
    if closed and least > len(first):
        raise PositionError(f"{where}.minItems", "is more than the array may have")
    if "items" not in schema and not closed:
        # Without `items` xgrammar allows no further ones.
        schema["items"] = True


def _objects(schema: dict[str, Any], where: str) -> None:
    if "object" not in _types(schema):
        return
    properties = schema.get("properties", {})
    required = expect(schema.get("required", []), list, f"{where}.required")
    for n, name in enumerate(required):
        expect(name, str, f"{where}.required[{n}]")
        if properties.get(name) is False:
            raise PositionError(f"{where}.properties.{shorten(name, 40)}", "is required and allows no value")
    others = schema.get("additionalProperties", schema.get("unevaluatedProperties"))
    patterns = schema.get("patternProperties", {})
    missing = [name for name in required if name not in properties]
    if missing and (others is False or patterns):
        raise PositionError(f"{where}.required", f"names '{shorten(missing[0])}', which is not among the properties")
    properties = {name: part for name, part in properties.items() if part is not False}
    if "properties" in schema or missing:
        # A required property without a schema of its own has that of the other properties.
        own = others if isinstance(others, dict) else True
        schema["properties"] = properties | dict.fromkeys(missing, own)
    counted = "minProperties" in schema or "maxProperties" in schema
    if patterns and ("properties" in schema or len(patterns) > 1):
        raise PositionError(f"{where}.patternProperties", "cannot be enforced beside other properties or patterns")
    if "propertyNames" in schema and (
        "properties" in schema or patterns or isinstance(others, dict) or others is False
    ):
        raise PositionError(f"{where}.propertyNames", "cannot be enforced beside properties or their patterns")
    if counted and others is None and not patterns and "propertyNames" not in schema:
        # Without it xgrammar allows no other properties.
        schema["additionalProperties"] = others = True
    if others is False and not patterns and schema.get("minProperties", 0) > len(properties):
        raise PositionError(f"{where}.minProperties", "is more than the object may have")


def _types(schema: dict[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and float(value).is_integer())
    if isinstance(value, str):
        return kind == "string"
    return kind == ("array" if isinstance(value, list) else "object")
