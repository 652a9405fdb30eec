# SPDX-License-Identifier: Apache-2.0
"""Which arguments of a request's functions are text, for models that write arguments without JSON's quotes."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

# References that lead to references, and alternatives within alternatives.
_DEEPEST = 8


def text_arguments(tools: Iterable[Any]) -> str:
    """The functions with their parameters that take text only, or text and null, as JSON: `{"f": ["a", "b"]}`.

    Whatever is no valid tool or schema is left out; `preprocessing` refuses it.
    """
    functions = (tool.get("function") for tool in tools if isinstance(tool, Mapping))
    return json.dumps(
        {
            function["name"]: _names(function.get("parameters"))
            for function in functions
            if isinstance(function, Mapping) and isinstance(function.get("name"), str)
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _names(schema: Any) -> list[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return []
    return [name for name, one in properties.items() if _types(one, schema, 0) in ({"string"}, {"string", "null"})]


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> set[str]:
    """The JSON types that a schema names; empty if it does not say."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return set()
    if isinstance(schema.get("$ref"), str):
        return _types(_target(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return {_type(schema["const"])}
    if isinstance(schema.get("enum"), list):
        return {_type(value) for value in schema["enum"]}
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            found = [_types(one, root, depth + 1) for one in schema[key]]
            return set().union(*found) if all(found) else set()
    given = schema.get("type")
    if isinstance(given, list):
        return {one for one in given if isinstance(one, str)}
    return {given} if isinstance(given, str) else set()


def _type(value: Any) -> str:
    return "string" if isinstance(value, str) else "null" if value is None else "other"


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    """What a reference within the schema points to; None if it leads nowhere."""
    found: Any = root
    start, *steps = reference.split("/")
    for step in steps if start == "#" else [""]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return found
