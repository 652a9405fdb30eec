# SPDX-License-Identifier: Apache-2.0
"""Which arguments of a request's functions are text, for models that write arguments without JSON's quotes."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

# References that lead to references, and alternatives within alternatives.
_DEEPEST = 8

# Function -> its parameters that take text only.
TextArguments = Mapping[str, frozenset[str]]


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


def read_text_arguments(text: str) -> TextArguments:
    """Read what `text_arguments` wrote, "" for no functions; raises ValueError if it is anything else."""
    functions = json.loads(text) if text else {}
    if not isinstance(functions, dict) or not all(isinstance(names, list) for names in functions.values()):
        raise ValueError("text_arguments must be a JSON object of arrays")
    return {function: frozenset(map(str, names)) for function, names in functions.items()}


def _names(schema: Any) -> list[str]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(properties, Mapping):
        return []
    types = _Types(schema)
    return [name for name, one in properties.items() if types.of(one) in ({"string"}, {"string", "null"})]


class _Types:
    """The JSON types that the parts of a schema name. Each part is looked at once, however often it is referred to."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[int, frozenset[str]] = {}

    def of(self, schema: Any, depth: int = 0) -> frozenset[str]:
        """The types of one part; empty if it does not say."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return frozenset()
        if id(schema) not in self._known:
            self._known[id(schema)] = frozenset()  # A part that refers to itself says nothing by that.
            self._known[id(schema)] = self._read(schema, depth + 1)
        return self._known[id(schema)]

    def _read(self, schema: Mapping[str, Any], depth: int) -> frozenset[str]:
        if isinstance(schema.get("$ref"), str):
            return self.of(_target(schema["$ref"], self._root), depth)
        if "const" in schema:
            return frozenset({_type(schema["const"])})
        if isinstance(schema.get("enum"), list):
            return frozenset(_type(value) for value in schema["enum"])
        given = schema.get("type")
        if isinstance(given, list):
            return frozenset(one for one in given if isinstance(one, str))
        if isinstance(given, str):
            return frozenset({given})
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                found = [self.of(one, depth) for one in schema[key]]
                return frozenset().union(*found) if all(found) else frozenset()
        return frozenset()


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
