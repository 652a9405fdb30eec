# SPDX-License-Identifier: Apache-2.0
"""Two JSON schemas at once."""

from typing import Any

from common.checks import PositionError, shorten
from preprocessing.guides.json_values import MERGE_VALUES, key
from preprocessing.guides.keywords import Schema
from preprocessing.guides.schema_errors import Contradiction, Refusals

MAX_ALTERNATIVES = 256  # Of two lists of alternatives that both hold.


class Joining:
    """Joins schemas, and remembers the positions of those that are prepared elsewhere than they stand."""

    def __init__(self, refusals: Refusals) -> None:
        self._refuse = refusals.refuse
        # By the identity of the schema.
        self._positions: dict[int, str] = {}
        self._joined: dict[int, Schema] = {}

    def position(self, value: Any, where: str) -> str:
        """The position of a schema if it is known, else `where`."""
        return self._positions.get(id(value), where)

    def is_joined(self, value: Any) -> bool:
        """Whether a schema is not the client's but joins two of its own."""
        return id(value) in self._joined

    def at(self, value: Any, where: str) -> Any:
        """The schema itself, once its position is noted."""
        if isinstance(value, dict):
            self._positions.setdefault(id(value), where)
        return value

    def both(self, first: Any, second: Any, where: str) -> Any:
        """A schema for what follows two schemas."""
        if first is True or key(first) == key(second):
            return second
        if second is True:
            return first
        if first is False or second is False:
            return False
        both = {"allOf": [first, second]}
        self._joined[id(both)] = both
        return self.at(both, where)

    def merged(self, first: Schema, second: Schema, where: str) -> Schema:
        """The keywords of two normal schemas that hold together."""
        merged = {**first, **second}
        for name in first.keys() & second.keys():
            if name in MERGE_VALUES:
                merged[name] = MERGE_VALUES[name](first[name], second[name])
            elif name in ("pattern", "multipleOf") and first[name] != second[name]:
                self._refuse(f"{where}.{name}", "cannot be enforced together with that of another part")
        for name in ("type", "enum"):
            if merged.get(name) == []:
                raise Contradiction(where, f"has parts whose {name} contradict each other")
        self._merge_objects(merged, first, second, where)
        self._merge_arrays(merged, first, second, where)
        if "anyOf" in first and "anyOf" in second:
            options = [self.both(one, other, where) for one in first["anyOf"] for other in second["anyOf"]]
            if len(options) > MAX_ALTERNATIVES:
                raise PositionError(where, "has too many alternatives together")
            merged["anyOf"] = options
        return merged

    def _merge_objects(self, merged: Schema, first: Schema, second: Schema, where: str) -> None:
        patterns = first.get("patternProperties", {}), second.get("patternProperties", {})
        others = first.get("additionalProperties", True), second.get("additionalProperties", True)
        if any(patterns) and not (others[0] is True and others[1] is True):
            self._refuse(f"{where}.patternProperties", "cannot be enforced beside additionalProperties of another part")
        properties: Schema = {}
        for one, other, rest in ((first, second, others[1]), (second, first, others[0])):
            for name, part in one.get("properties", {}).items():
                if name not in properties:
                    beside = other.get("properties", {}).get(name, rest)
                    properties[name] = self.both(part, beside, f"{where}.properties.{shorten(name, 40)}")
        if properties or "properties" in merged:
            merged["properties"] = properties
        if any(patterns):
            names = [*patterns[0], *patterns[1]]
            merged["patternProperties"] = {
                name: self.both(patterns[0].get(name, True), patterns[1].get(name, True), where) for name in names
            }
        for name in ("additionalProperties", "propertyNames"):
            if name in first and name in second:
                merged[name] = self.both(first[name], second[name], f"{where}.{name}")

    def _merge_arrays(self, merged: Schema, first: Schema, second: Schema, where: str) -> None:
        heads = first.get("prefixItems", []), second.get("prefixItems", [])
        rests = first.get("items", True), second.get("items", True)
        pairs = (
            (head[n] if n < len(head) else rest for head, rest in zip(heads, rests, strict=True))
            for n in range(max(map(len, heads)))
        )
        if heads[0] or heads[1]:
            merged["prefixItems"] = [
                self.both(one, other, f"{where}.prefixItems[{n}]") for n, (one, other) in enumerate(pairs)
            ]
        if "items" in merged:
            merged["items"] = self.both(*rests, f"{where}.items")
