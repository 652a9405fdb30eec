# SPDX-License-Identifier: Apache-2.0
"""Prepare a JSON schema for xgrammar: what it would pass over is written in another way, or refused with its path.

The same for response formats, structured outputs, structural tags and the parameters of tools.
"""

import json
from typing import Any

from common.checks import PositionError, expect, shorten
from preprocessing.guides.json_values import common_values, distinct_types
from preprocessing.guides.keywords import (
    COUNTS,
    ENFORCED,
    JSON_TYPES,
    MARK,
    REFUSED,
    SCHEMA_LISTS,
    SCHEMA_MAPS,
    SCHEMAS,
    Schema,
    check_values,
    says_nothing,
)
from preprocessing.guides.schema_errors import Contradiction, Refusals
from preprocessing.guides.schema_joining import Joining
from preprocessing.guides.schema_references import References
from preprocessing.guides.schema_scalars import Scalars

MAX_NODES = 10_000  # Subschemas of a prepared schema; alternatives repeat what stands beside them.
MAX_OPEN = 100  # Subschemas in each other, those of references included.

# xgrammar takes two parts that differ only in these for the same, even if they are names of properties.
_OVERLOOKED = frozenset(
    ("title", "default", "description", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema")
)


def prepare_schema(schema: Schema, where: str, *, best_effort: bool = False) -> Schema:
    """The schema as xgrammar enforces it; every answer that it allows is valid by the given schema.

    best_effort: leave out what cannot be enforced, so that the answers need not follow it.
    Raises RequestError naming the position of a part that is invalid, contradicts another, or cannot be enforced.
    """
    return _Preparation(schema, where, best_effort=best_effort).whole()


class _Preparation:
    """One schema as a whole, in which references are looked up."""

    def __init__(self, root: Schema, where: str, *, best_effort: bool) -> None:
        self._root = root
        self._where = where
        self._nodes = 0
        self._inlined: list[int] = []
        self._open: list[int] = []  # Schemas that are being prepared, by their identity.
        refusals = Refusals(best_effort)
        self._refuse = refusals.refuse
        self._references = References(root, where)
        self._joining = Joining(refusals)
        self._scalars = Scalars(refusals)

    def whole(self) -> Schema:
        prepared = self._given(self._prepared(self._root, self._where), self._where)
        definitions: Schema = {}
        while new := self._references.targets[len(definitions) :]:
            for name, target, where in new:
                definitions[name] = self._given(self._prepared(target, where), where)
        if definitions:
            self._references.check_recursion(definitions)
            prepared = {**prepared, "$defs": definitions}
        return prepared

    def _given(self, prepared: Schema | bool, where: str) -> Schema:
        if prepared is False:
            raise Contradiction(where, "allows no value")
        return {} if prepared is True else prepared

    def _prepared(self, value: Any, where: str) -> Schema | bool:
        """The schema as xgrammar takes it; False if it allows no value."""
        where = self._joining.position(value, where)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise PositionError(self._where, "is too large: fewer alternatives or references are needed")
        if isinstance(value, bool):
            return value
        if id(value) in self._open:
            return self._references.name(value, where)
        if len(self._open) > MAX_OPEN:
            raise PositionError(where, "is nested too deeply, or part of itself")
        self._open.append(id(value))
        try:
            schema = self._normal(expect(value, dict, where), where)
            if isinstance(schema, dict) and "$ref" not in schema:
                schema = self._alternatives(schema, where) if "anyOf" in schema else self._typed(schema, where)
        finally:
            self._open.pop()
        return schema

    # A schema with its own keywords, without allOf, and with anyOf for oneOf.

    def _normal(self, schema: Schema, where: str) -> Schema | bool:
        check_values(schema, where)
        own = self._own(schema, where)
        parts: list[Schema | bool] = [own] if own else []
        alone = not own
        if "$ref" in schema:
            target, position = self._references.follow(schema["$ref"], where)
            if alone and not any(name in schema for name in ("allOf", "anyOf", "oneOf")):
                return self._references.name(target, position)
            parts.append(self._inline(target, position))
        for n, part in enumerate(schema.get("allOf", ())):
            position = self._joining.position(part, f"{where}.allOf[{n}]")
            if alone and len(schema["allOf"]) == 1 and not any(name in schema for name in ("$ref", "anyOf", "oneOf")):
                return self._prepared_normal(part, position)
            parts.append(self._inline(part, position))
        for name in ("anyOf", "oneOf"):
            if name in schema:
                options = [self._joining.at(part, f"{where}.{name}[{n}]") for n, part in enumerate(schema[name])]
                parts.append({"anyOf": options})
        if any(one is False for one in parts):
            return False
        merged: Schema = {}
        for one in parts:
            if isinstance(one, dict):
                merged = self._joining.merged(merged, one, where) if merged else one
        return merged

    def _prepared_normal(self, value: Any, where: str) -> Schema | bool:
        return value if isinstance(value, bool) else self._normal(expect(value, dict, where), where)

    def _inline(self, value: Any, where: str) -> Schema | bool:
        """A part of a schema with all that it refers to."""
        if id(value) in self._inlined:
            raise PositionError(where, "is part of itself, which cannot be enforced beside other keywords")
        if len(self._inlined) > 32:
            raise PositionError(where, "has too many references to references")
        self._inlined.append(id(value))
        try:
            normal = self._prepared_normal(value, where)
            while isinstance(normal, dict) and "$ref" in normal:
                normal = self._inline(*self._references.named(normal["$ref"]))
        finally:
            self._inlined.pop()
        return normal

    def _own(self, schema: Schema, where: str) -> Schema:
        """The keywords about a value itself, each in one form, without those that cannot be enforced."""
        own: Schema = {}
        for name, value in schema.items():
            if name in ENFORCED and name not in ("$ref", "allOf", "anyOf", "oneOf"):
                own[name] = self._located(name, value, where)
            elif name in REFUSED and not says_nothing(name, schema):
                own[name] = value
        own = {name: int(value) if name in COUNTS else value for name, value in own.items()}
        if isinstance(own.get("items"), list):  # Up to draft 2019-09.
            own["prefixItems"] = own.pop("items")
            if "additionalItems" in schema:
                own["items"] = schema["additionalItems"]
        for name in ("unevaluatedProperties", "unevaluatedItems"):
            other = {"unevaluatedProperties": "additionalProperties", "unevaluatedItems": "items"}[name]
            # The same as the other keyword, if nothing else looks at properties or items.
            if name in own and not any(one in schema for one in ("$ref", "allOf", "anyOf", "oneOf", "if", "contains")):
                own.setdefault(other, own.pop(name))
                own.pop(name, None)
        if "const" in own:
            value = own.pop("const")
            values = common_values([value], own.get("enum", [value]))
            if not values:
                raise Contradiction(f"{where}.const", "is not among the values of enum")
            own["enum"] = values
        if "type" in own:
            own["type"] = distinct_types(own["type"])
        for name in REFUSED:
            if name in own and _applies(REFUSED[name], own.get("type")):
                self._refuse(f"{where}.{name}", "cannot be enforced")
            own.pop(name, None)
        if "pattern" in own and self._scalars.pattern(own["pattern"], f"{where}.pattern") is None:
            del own["pattern"]
        return own

    def _located(self, name: str, value: Any, where: str) -> Any:
        """The value of a keyword, with its subschemas marked with their positions."""
        if name in SCHEMA_MAPS:
            return {key: self._joining.at(part, f"{where}.{name}.{shorten(key, 40)}") for key, part in value.items()}
        if name in SCHEMA_LISTS or (name == "items" and isinstance(value, list)):
            return [self._joining.at(part, f"{where}.{name}[{n}]") for n, part in enumerate(value)]
        return self._joining.at(value, f"{where}.{name}") if name in SCHEMAS else value

    # A normal schema, prepared.

    def _alternatives(self, schema: Schema, where: str) -> Schema | bool:
        """The alternatives, each together with what stands beside them."""
        beside = {name: value for name, value in schema.items() if name != "anyOf"}
        prepared: list[Schema] = []
        for option in schema["anyOf"]:
            whole = self._joining.both(beside or True, option, where)
            try:
                one = self._prepared(whole, where)
            except Contradiction:
                if not self._joining.is_joined(whole):
                    raise
                one = False
            if one is True:
                return True
            if one is not False:
                prepared.append(one)
        if not prepared:
            return False
        return prepared[0] if len(prepared) == 1 else {"anyOf": prepared}

    def _typed(self, schema: Schema, where: str) -> Schema | bool:
        if "enum" in schema:
            return self._scalars.values(schema, where)
        about = {ENFORCED[name] for name in schema}
        kinds = schema.get("type") or [kind for kind in JSON_TYPES if kind in about]
        if not kinds:
            return True
        parts = [self._one_type(schema, kind, where) for kind in kinds]
        return parts[0] if len(parts) == 1 else {"anyOf": parts}

    def _one_type(self, schema: Schema, kind: str, where: str) -> Schema:
        """The part of a schema that is about one type."""
        about = "number" if kind == "integer" else kind
        own = {name: value for name, value in schema.items() if ENFORCED.get(name) == about}
        prepare = {
            "string": self._scalars.string,
            "array": self._array,
            "object": self._object,
            "number": self._scalars.number,
        }
        return prepare[about]({"type": kind, **own}, where) if about in prepare else {"type": kind}

    def _array(self, schema: Schema, where: str) -> Schema:
        head = [
            self._prepared(part, f"{where}.prefixItems[{n}]") for n, part in enumerate(schema.pop("prefixItems", []))
        ]
        rest = self._prepared(schema.pop("items", True), f"{where}.items")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and least > most:
            raise Contradiction(where, "has a minItems above its maxItems")
        allowed = head.index(False) if False in head else len(head)
        if most is not None:
            allowed = min(allowed, most)
        if allowed < len(head) or most == len(head):
            head, rest = head[:allowed], False
        if rest is False:
            if least > len(head):
                raise Contradiction(f"{where}.minItems", "is more than the array may have")
            schema.pop("maxItems", None)
        if head:
            schema["prefixItems"] = [self._given(part, where) for part in head]
        # Without `items` xgrammar allows no further ones.
        return {**schema, "items": rest}

    def _object(self, schema: Schema, where: str) -> Schema:
        given = "properties" in schema
        properties: Schema = {
            name: self._prepared(part, f"{where}.properties.{shorten(name, 40)}")
            for name, part in schema.pop("properties", {}).items()
        }
        others = schema.pop("additionalProperties", None)
        rest = None if others is None else self._prepared(others, f"{where}.additionalProperties")
        patterns = self._patterns(schema.pop("patternProperties", {}), where)
        required = list(dict.fromkeys(schema.pop("required", ())))
        names = schema.pop("propertyNames", True)
        if names is not True:
            properties, patterns, rest = self._named(names, properties, patterns, rest, where)
        for name in required:
            self._require(name, properties, patterns, rest, where)
        if rest not in (None, False) and False in properties.values():
            self._refuse(
                f"{where}.properties", "has false for a name, which cannot be enforced with additionalProperties"
            )
        properties = {name: part for name, part in properties.items() if part is not False}
        if patterns and (properties or len(patterns) > 1 or rest not in (None, False)):
            self._refuse(f"{where}.patternProperties", "cannot be enforced beside other properties or patterns")
            patterns = {}
        least, most = schema.get("minProperties", 0), schema.get("maxProperties")
        if most is not None and (least > most or len(required) > most):
            raise Contradiction(f"{where}.maxProperties", "is less than the object must have")
        if rest is None and not given and not patterns:
            rest = True
        if least > len(properties) and rest is None and not patterns:
            rest = True  # Without it xgrammar allows no other properties.
        if not patterns and least > len(properties) and rest in (None, False):
            raise Contradiction(f"{where}.minProperties", "is more than the object may have")
        return self._written_object(schema, properties, required, patterns, rest)

    def _written_object(
        self, schema: Schema, properties: Schema, required: list[str], patterns: Schema, rest: Schema | bool | None
    ) -> Schema:
        if properties:
            schema["properties"] = properties
            if not _OVERLOOKED.isdisjoint(properties):
                schema[MARK] = json.dumps({name: properties[name] for name in properties if name in _OVERLOOKED})
        if required:
            schema["required"] = required
        if patterns:
            return {**schema, "patternProperties": patterns}
        return {**schema, "additionalProperties": False if rest is None else rest}

    def _patterns(self, patterns: Schema, where: str) -> Schema:
        found: Schema = {}
        for text, part in patterns.items():
            position = f"{where}.patternProperties.{shorten(text, 40)}"
            pattern, prepared = self._scalars.pattern(text, position), self._prepared(part, position)
            if pattern is not None and prepared is not False:
                found[self._scalars.text(pattern, 0, None, position) or "^.*$"] = prepared
            elif prepared is False:
                self._refuse(position, "cannot be enforced")
        return found

    def _named(
        self,
        names: Any,
        properties: Schema,
        patterns: Schema,
        rest: Schema | bool | None,
        where: str,
    ) -> tuple[Schema, Schema, Schema | bool | None]:
        """The properties whose names follow propertyNames, written without it."""
        position = f"{where}.propertyNames"
        allowed = self._prepared(self._joining.both({"type": ["string"]}, names, position), position)
        value = True if rest is None else rest
        if allowed == {"type": "string"}:
            return properties, patterns, rest
        if allowed is False or (value is False and not properties and not patterns):
            return {}, {}, False
        if isinstance(allowed, dict) and not patterns:
            if "enum" in allowed:
                return {name: properties.get(name, value) for name in allowed["enum"]}, {}, False
            if "pattern" in allowed and not properties:
                return {}, {allowed["pattern"]: value}, None
        self._refuse(position, "cannot be enforced beside properties or patterns, or with these keywords")
        return properties, patterns, rest

    def _require(self, name: str, properties: Schema, patterns: Schema, rest: Schema | bool | None, where: str) -> None:
        """Give a required property without a schema of its own that of the other properties."""
        if name not in properties:
            if patterns:
                self._refuse(f"{where}.required", "cannot be enforced beside patternProperties or propertyNames")
                return
            properties[name] = True if rest is None else rest
        if properties[name] is False:
            raise Contradiction(f"{where}.required", f"names '{shorten(name, 40)}', which the object may not have")


def _applies(kind: str | None, kinds: list[str] | None) -> bool:
    return kind is None or kinds is None or kind in kinds
