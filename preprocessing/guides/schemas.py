# SPDX-License-Identifier: Apache-2.0
"""Prepare a JSON schema for xgrammar: what it would pass over is written in another way, or refused with its path.

The same for response formats, structured outputs, structural tags and the parameters of tools.
"""

import json
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter
from math import ceil, floor, inf, isfinite
from typing import Any
from urllib.parse import unquote

from common.checks import PositionError, expect, shorten
from preprocessing.guides.formats import FORMATS
from preprocessing.guides.json_values import (
    MERGE_VALUES,
    common_values,
    distinct_types,
    is_of_type,
    key,
    needs_range,
    objects,
    within,
)
from preprocessing.guides.keywords import (
    COUNTS,
    ENFORCED,
    JSON_TYPES,
    REFUSED,
    SCHEMA_LISTS,
    SCHEMA_MAPS,
    SCHEMAS,
    Schema,
    check_values,
    says_nothing,
)
from preprocessing.guides.patterns import Pattern, PatternError

MAX_NODES = 10_000  # Subschemas of a prepared schema; alternatives repeat what stands beside them.
MAX_MATCHING = 500_000  # Characters of values times those of a pattern that they must have, about 0.5 s.
MAX_OPEN = 100  # Subschemas in each other, those of references included.
MAX_ALTERNATIVES = 256  # Of two lists of alternatives that both hold.
MAX_MULTIPLES = 1024  # Values that stand for multipleOf between two bounds.
LONG_TEXT = 1000  # Texts of a format are not limited to this length or more.

_INT64 = 2**63
_PREFIX = "#/$defs/"
# xgrammar takes two parts that differ only in these for the same, even if they are names of properties.
_OVERLOOKED = frozenset(
    ("title", "default", "description", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "$schema")
)
MARK = "x-part"


class _Contradiction(PositionError):
    """Parts of a schema that no value follows together."""


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
        self._best_effort = best_effort
        self._nodes = 0
        # Positions of subschemas that are prepared elsewhere than they stand, by their identity.
        self._positions: dict[int, str] = {}
        # Targets of references by their identity: the name among the definitions, the target, and its position.
        self._targets: dict[int, tuple[str, Any, str]] = {}
        self._inlined: list[int] = []
        self._open: list[int] = []  # Schemas that are being prepared, by their identity.
        self._joined: dict[int, Schema] = {}  # Schemas that are not the client's but join two of its own.

    def whole(self) -> Schema:
        for one in objects(self._root):
            own = one.get("$id")
            if one is self._root or not isinstance(own, str) or _is_fragment(own):
                continue
            if "$ref" in json.dumps(one):
                raise PositionError(self._where, f"has references in a part with an $id: '{shorten(own)}'")
        prepared = self._given(self._prepared(self._root, self._where), self._where)
        definitions: Schema = {}
        while len(definitions) < len(self._targets):
            for name, target, where in list(self._targets.values())[len(definitions) :]:
                definitions[name] = self._given(self._prepared(target, where), where)
        if definitions:
            self._check_recursion(definitions)
            prepared = {**prepared, "$defs": definitions}
        return prepared

    def _given(self, prepared: Schema | bool, where: str) -> Schema:
        if prepared is False:
            raise _Contradiction(where, "allows no value")
        return {} if prepared is True else prepared

    def _prepared(self, value: Any, where: str) -> Schema | bool:
        """The schema as xgrammar takes it; False if it allows no value."""
        where = self._positions.get(id(value), where)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise PositionError(self._where, "is too large: fewer alternatives or references are needed")
        if isinstance(value, bool):
            return value
        if id(value) in self._open:
            return self._reference(value, where)
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
            target, position = self._target(schema["$ref"], where)
            if alone and not any(name in schema for name in ("allOf", "anyOf", "oneOf")):
                return self._reference(target, position)
            parts.append(self._inline(target, position))
        for n, part in enumerate(schema.get("allOf", ())):
            position = self._positions.get(id(part), f"{where}.allOf[{n}]")
            if alone and len(schema["allOf"]) == 1 and not any(name in schema for name in ("$ref", "anyOf", "oneOf")):
                return self._prepared_normal(part, position)
            parts.append(self._inline(part, position))
        for name in ("anyOf", "oneOf"):
            if name in schema:
                options = [self._at(part, f"{where}.{name}[{n}]") for n, part in enumerate(schema[name])]
                parts.append({"anyOf": options})
        if any(one is False for one in parts):
            return False
        merged: Schema = {}
        for one in parts:
            if isinstance(one, dict):
                merged = self._merged(merged, one, where) if merged else one
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
                _, target, position = next(one for one in self._targets.values() if _PREFIX + one[0] == normal["$ref"])
                normal = self._inline(target, position)
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
                raise _Contradiction(f"{where}.const", "is not among the values of enum")
            own["enum"] = values
        if "type" in own:
            own["type"] = distinct_types(own["type"])
        for name in REFUSED:
            if name in own and _applies(REFUSED[name], own.get("type")):
                self._refuse(f"{where}.{name}", "cannot be enforced")
            own.pop(name, None)
        if "pattern" in own and self._pattern(own["pattern"], f"{where}.pattern") is None:
            del own["pattern"]
        return own

    def _located(self, name: str, value: Any, where: str) -> Any:
        """The value of a keyword, with its subschemas marked with their positions."""
        if name in SCHEMA_MAPS:
            return {key: self._at(part, f"{where}.{name}.{shorten(key, 40)}") for key, part in value.items()}
        if name in SCHEMA_LISTS or (name == "items" and isinstance(value, list)):
            return [self._at(part, f"{where}.{name}[{n}]") for n, part in enumerate(value)]
        return self._at(value, f"{where}.{name}") if name in SCHEMAS else value

    def _at(self, value: Any, where: str) -> Any:
        if isinstance(value, dict):
            self._positions.setdefault(id(value), where)
        return value

    def _both(self, first: Any, second: Any, where: str) -> Any:
        """A schema for what follows two schemas."""
        if first is True or key(first) == key(second):
            return second
        if second is True:
            return first
        if first is False or second is False:
            return False
        both = {"allOf": [first, second]}
        self._joined[id(both)] = both
        return self._at(both, where)

    def _refuse(self, where: str, problem: str) -> None:
        """Raise RequestError for what cannot be enforced, unless it may be left out."""
        if not self._best_effort:
            raise PositionError(where, problem)

    # References.

    def _target(self, reference: str, where: str) -> tuple[Any, str]:
        """What a reference leads to, and its position."""
        seen: set[str] = set()
        while reference not in seen:
            seen.add(reference)
            target, position = self._find(reference, where)
            chained = isinstance(target, dict) and isinstance(target.get("$ref"), str)
            if not chained or any(name in ENFORCED or name in REFUSED for name in target if name != "$ref"):
                return target, position
            reference = target["$ref"]
        raise PositionError(where, f"has a $ref that leads to itself: '{shorten(reference)}'")

    def _find(self, reference: str, where: str) -> tuple[Any, str]:
        document, _, fragment = reference.partition("#")
        own = self._root.get("$id", "")
        if document and document != (own.split("#")[0] if isinstance(own, str) else None):
            raise PositionError(where, f"has a $ref to outside of the schema: '{shorten(reference)}'")
        target, position = self._root, self._where
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise PositionError(where, f"has a $ref to nothing: '{shorten(reference)}'")
            return self._anchors[fragment], f"{self._where}#{shorten(fragment, 40)}"
        for part in fragment.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, list) and name.isdecimal() and int(name[:9]) < len(target):
                target, position = target[int(name[:9])], f"{position}[{int(name[:9])}]"
            elif isinstance(target, dict) and name in target:
                target, position = target[name], f"{position}.{shorten(name, 40)}"
            else:
                raise PositionError(where, f"has a $ref to nothing: '{shorten(reference)}'")
        return target, position

    @cached_property
    def _anchors(self) -> dict[str, Schema]:
        """Subschemas by their `$anchor`, or their `$id` of "#" and a name, as it was up to draft 7."""
        found = [(one.get("$anchor"), one) for one in objects(self._root)]
        found += [
            (one.get("$id", "").removeprefix("#"), one) for one in objects(self._root) if _is_fragment(one.get("$id"))
        ]
        return {name: one for name, one in found if isinstance(name, str)}

    def _reference(self, target: Any, where: str) -> Schema | bool:
        if isinstance(target, bool):
            return target
        expect(target, dict, where)
        if id(target) not in self._targets:
            self._targets[id(target)] = f"d{len(self._targets)}", target, where
        return {"$ref": _PREFIX + self._targets[id(target)][0]}

    def _check_recursion(self, definitions: Schema) -> None:
        """Raise RequestError for definitions that are their own alternatives, or have no finite value."""
        positions = {name: where for name, _, where in self._targets.values()}
        try:
            TopologicalSorter({name: set(_alternatives_of(part)) for name, part in definitions.items()}).prepare()
        except CycleError as error:
            raise PositionError(positions[error.args[1][0]], "is one of its own alternatives") from None
        users: dict[str, list[str]] = {name: [] for name in definitions}
        for name, part in definitions.items():
            for target in {
                one["$ref"].removeprefix(_PREFIX) for one in objects(part) if isinstance(one.get("$ref"), str)
            }:
                users.get(target, []).append(name)
        finite: set[str] = set()
        waiting = list(definitions)
        while waiting:
            name = waiting.pop()
            if name not in finite and _finite(definitions[name], finite):
                finite.add(name)
                waiting += users[name]
        endless = [name for name in definitions if name not in finite]
        if endless:
            raise PositionError(positions[endless[0]], "must have itself as a part, so that no value ends")

    # Two schemas at once.

    def _merged(self, first: Schema, second: Schema, where: str) -> Schema:
        """The keywords of two normal schemas that hold together."""
        merged = {**first, **second}
        for name in first.keys() & second.keys():
            if name in MERGE_VALUES:
                merged[name] = MERGE_VALUES[name](first[name], second[name])
            elif name in ("pattern", "multipleOf") and first[name] != second[name]:
                self._refuse(f"{where}.{name}", "cannot be enforced together with that of another part")
        for name in ("type", "enum"):
            if merged.get(name) == []:
                raise _Contradiction(where, f"has parts whose {name} contradict each other")
        self._merge_objects(merged, first, second, where)
        self._merge_arrays(merged, first, second, where)
        if "anyOf" in first and "anyOf" in second:
            options = [self._both(one, other, where) for one in first["anyOf"] for other in second["anyOf"]]
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
                    properties[name] = self._both(part, beside, f"{where}.properties.{shorten(name, 40)}")
        if properties or "properties" in merged:
            merged["properties"] = properties
        if any(patterns):
            names = [*patterns[0], *patterns[1]]
            merged["patternProperties"] = {
                name: self._both(patterns[0].get(name, True), patterns[1].get(name, True), where) for name in names
            }
        for name in ("additionalProperties", "propertyNames"):
            if name in first and name in second:
                merged[name] = self._both(first[name], second[name], f"{where}.{name}")

    def _merge_arrays(self, merged: Schema, first: Schema, second: Schema, where: str) -> None:
        heads = first.get("prefixItems", []), second.get("prefixItems", [])
        rests = first.get("items", True), second.get("items", True)
        pairs = (
            (head[n] if n < len(head) else rest for head, rest in zip(heads, rests, strict=True))
            for n in range(max(map(len, heads)))
        )
        if heads[0] or heads[1]:
            merged["prefixItems"] = [
                self._both(one, other, f"{where}.prefixItems[{n}]") for n, (one, other) in enumerate(pairs)
            ]
        if "items" in merged:
            merged["items"] = self._both(*rests, f"{where}.items")

    # A normal schema, prepared.

    def _alternatives(self, schema: Schema, where: str) -> Schema | bool:
        """The alternatives, each together with what stands beside them."""
        beside = {name: value for name, value in schema.items() if name != "anyOf"}
        prepared: list[Schema] = []
        for option in schema["anyOf"]:
            whole = self._both(beside or True, option, where)
            try:
                one = self._prepared(whole, where)
            except _Contradiction:
                if id(whole) not in self._joined:
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
            return self._values(schema, where)
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
        prepare = {"string": self._string, "array": self._array, "object": self._object, "number": self._number}
        return prepare[about]({"type": kind, **own}, where) if about in prepare else {"type": kind}

    def _values(self, schema: Schema, where: str) -> Schema:
        """An enum of the values that follow the other keywords."""
        if "pattern" in schema:
            texts = sum(len(value) for value in schema["enum"] if isinstance(value, str))
            if texts * len(schema["pattern"]) > MAX_MATCHING:
                raise PositionError(f"{where}.pattern", "is too long beside so many values")
        values = [value for value in schema["enum"] if self._follows(value, schema, where)]
        if not values:
            raise _Contradiction(where, "has an enum or const without a value that follows the other keywords")
        # xgrammar writes floats with 17 digits, as 0.10000000000000001; a range of one value is written as it is.
        ranges = [{"type": "number", "minimum": one, "maximum": one} for one in values if needs_range(one)]
        plain = [one for one in values if not needs_range(one)]
        own: Schema = {"enum": plain}
        if any(isinstance(one, dict | list) for one in plain):
            own[MARK] = json.dumps(plain)
        options = [*([own] if plain else []), *ranges]
        return options[0] if len(options) == 1 else {"anyOf": options}

    def _follows(self, value: Any, schema: Schema, where: str) -> bool:
        kinds = schema.get("type")
        if kinds and not any(is_of_type(value, kind) for kind in kinds):
            return False
        if isinstance(value, bool) or value is None:
            return True
        if isinstance(value, int | float):
            multiple = schema.get("multipleOf")
            whole = multiple is None or Fraction(str(value)) % Fraction(str(multiple)) == 0
            return whole and within(value, schema, "minimum", "maximum")
        if isinstance(value, str):
            pattern = self._pattern(schema["pattern"], f"{where}.pattern") if "pattern" in schema else None
            return within(len(value), schema, "minLength", "maxLength") and (not pattern or pattern.matches(value))
        kind = "array" if isinstance(value, list) else "object"
        counts = ("minItems", "maxItems") if kind == "array" else ("minProperties", "maxProperties")
        for name in schema:
            if ENFORCED.get(name) == kind and name not in (*counts, "required"):
                self._refuse(f"{where}.{name}", "cannot be enforced beside enum or const")
        return within(len(value), schema, *counts) and all(name in value for name in schema.get("required", ()))

    def _pattern(self, text: str, where: str) -> Pattern | None:
        try:
            return Pattern(text)
        except PatternError as error:
            if error.invalid:
                raise PositionError(where, str(error)) from None
            self._refuse(where, str(error))
        return None

    def _string(self, schema: Schema, where: str) -> Schema:
        least, most = schema.pop("minLength", 0), schema.pop("maxLength", None)
        if most is not None and least > most:
            raise _Contradiction(where, "has a minLength above its maxLength")
        found = schema.pop("pattern", None)
        named = schema.pop("format", None)
        pattern = self._pattern(found, f"{where}.pattern") if found is not None else None
        # A format is an annotation, a pattern and a length are not.
        if pattern is None and named in FORMATS and (text := _format_text(named, least, most)):
            return {**schema, "pattern": text}
        # Lengths are patterns too: xgrammar's own allow control characters, which JSON does not.
        text = self._text(pattern or Pattern(""), least, most, f"{where}.pattern")
        return {**schema, "pattern": text} if text else schema

    def _text(self, pattern: Pattern, least: int, most: int | None, where: str) -> str:
        for bounds in ((least, most), (0, None)):
            try:
                return pattern.rewritten(*bounds)
            except PatternError as error:
                if error.invalid:
                    raise _Contradiction(where, str(error)) from None
                self._refuse(where, str(error))
        return ""

    def _number(self, schema: Schema, where: str) -> Schema:
        multiple = schema.pop("multipleOf", None)
        if schema["type"] == "integer":
            _whole_bounds(schema)
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None and low > high:
                raise _Contradiction(where, "has a minimum above its maximum")
            if (low or 0) >= _INT64 or (high or 0) <= -_INT64:
                raise PositionError(where, "has a bound of more than 64 bits")
        else:
            self._check_range(schema, where)
        if multiple is None or (schema["type"] == "integer" and multiple == 1):
            return schema
        if schema["type"] != "integer" or multiple != int(multiple):
            self._refuse(f"{where}.multipleOf", "cannot be enforced unless it is that of an integer")
            return schema
        multiple = int(multiple)
        if low is None or high is None:
            self._refuse(f"{where}.multipleOf", "cannot be enforced without a minimum and a maximum")
            return schema
        values = range(-(-low // multiple) * multiple, high + 1, multiple)
        if not values:
            raise _Contradiction(f"{where}.multipleOf", "has no multiple within the bounds")
        if len(values) > MAX_MULTIPLES:
            self._refuse(f"{where}.multipleOf", f"cannot be enforced with more than {MAX_MULTIPLES} multiples")
            return schema
        # As values, because vLLM refuses multipleOf.
        return {"enum": list(values)}

    def _check_range(self, schema: Schema, where: str) -> None:
        """Raise RequestError for a range without a number of 6 decimals; xgrammar writes no others."""
        if not ("minimum" in schema or "exclusiveMinimum" in schema) or not (
            "maximum" in schema or "exclusiveMaximum" in schema
        ):
            return
        low = max(schema.get("minimum", -inf), schema.get("exclusiveMinimum", -inf))
        high = min(schema.get("maximum", inf), schema.get("exclusiveMaximum", inf))
        open_ends = low == schema.get("exclusiveMinimum") or high == schema.get("exclusiveMaximum")
        if low > high or (low == high and open_ends):
            raise _Contradiction(where, "has a range without a value")
        first, last = Fraction(str(low)) * 10**6, Fraction(str(high)) * 10**6
        steps = floor(last) - ceil(first)
        steps -= low == schema.get("exclusiveMinimum") and first == ceil(first)
        steps -= high == schema.get("exclusiveMaximum") and last == floor(last)
        if steps < 0:
            raise PositionError(where, "has a range that needs more than 6 decimals")

    def _array(self, schema: Schema, where: str) -> Schema:
        head = [
            self._prepared(part, f"{where}.prefixItems[{n}]") for n, part in enumerate(schema.pop("prefixItems", []))
        ]
        rest = self._prepared(schema.pop("items", True), f"{where}.items")
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if most is not None and least > most:
            raise _Contradiction(where, "has a minItems above its maxItems")
        allowed = head.index(False) if False in head else len(head)
        if most is not None:
            allowed = min(allowed, most)
        if allowed < len(head) or most == len(head):
            head, rest = head[:allowed], False
        if rest is False:
            if least > len(head):
                raise _Contradiction(f"{where}.minItems", "is more than the array may have")
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
            raise _Contradiction(f"{where}.maxProperties", "is less than the object must have")
        if rest is None and not given and not patterns:
            rest = True
        if least > len(properties) and rest is None and not patterns:
            rest = True  # Without it xgrammar allows no other properties.
        if not patterns and least > len(properties) and rest in (None, False):
            raise _Contradiction(f"{where}.minProperties", "is more than the object may have")
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
            pattern, prepared = self._pattern(text, position), self._prepared(part, position)
            if pattern is not None and prepared is not False:
                found[self._text(pattern, 0, None, position) or "^.*$"] = prepared
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
        allowed = self._prepared(self._both({"type": ["string"]}, names, position), position)
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
            raise _Contradiction(f"{where}.required", f"names '{shorten(name, 40)}', which the object may not have")


@lru_cache(maxsize=256)
def _format_text(name: str, least: int, most: int | None) -> str:
    """The pattern of a format with a length; empty if the length cannot be built in."""
    # HttpUrl of pydantic has a maxLength of 2083.
    limit = None if most is not None and most >= LONG_TEXT else most
    try:
        return Pattern(FORMATS[name]).rewritten(least, limit)
    except PatternError:
        return ""


def _applies(kind: str | None, kinds: list[str] | None) -> bool:
    return kind is None or kinds is None or kind in kinds


def _whole_bounds(schema: Schema) -> None:
    """Write the bounds of an integer as `minimum` and `maximum` of 64 bits."""
    lows = [ceil(schema.pop("minimum", -inf))] if isfinite(schema.get("minimum", -inf)) else []
    highs = [floor(schema.pop("maximum", inf))] if isfinite(schema.get("maximum", inf)) else []
    if "exclusiveMinimum" in schema:
        lows.append(floor(schema.pop("exclusiveMinimum")) + 1)
    if "exclusiveMaximum" in schema:
        highs.append(ceil(schema.pop("exclusiveMaximum")) - 1)
    if lows and max(lows) > -_INT64:
        schema["minimum"] = max(lows)
    if highs and min(highs) < _INT64 - 1:
        schema["maximum"] = min(highs)


def _is_fragment(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("#")


def _alternatives_of(schema: Schema | bool) -> Iterator[str]:
    """Names of the definitions that are alternatives of a prepared schema, or it as a whole."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].removeprefix(_PREFIX)
        for option in schema.get("anyOf", ()):
            yield from _alternatives_of(option)


def _finite(schema: Schema | bool, known: set[str]) -> bool:
    """Whether a prepared schema has a finite value, if the definitions `known` have."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return schema["$ref"].removeprefix(_PREFIX) in known
    if "anyOf" in schema:
        return any(_finite(option, known) for option in schema["anyOf"])
    if not all(_finite(schema.get("properties", {})[name], known) for name in schema.get("required", ())):
        return False
    head, least = schema.get("prefixItems", []), schema.get("minItems", 0)
    rest = [schema.get("items", True)] if least > len(head) else []
    return all(_finite(part, known) for part in [*head[:least], *rest])
