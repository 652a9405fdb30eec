# SPDX-License-Identifier: Apache-2.0
"""Texts, numbers and lists of values in a JSON schema, as xgrammar enforces them."""

import json
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, inf, isfinite
from typing import Any

from common.checks import PositionError
from preprocessing.guides.formats import FORMATS
from preprocessing.guides.json_values import is_of_type, needs_range, within
from preprocessing.guides.keywords import ENFORCED, MARK, Schema
from preprocessing.guides.patterns import Pattern, PatternError
from preprocessing.guides.schema_errors import Contradiction, Refusals

MAX_MATCHING = 500_000  # Characters of values times those of a pattern that they must have, about 0.5 s.
MAX_MULTIPLES = 1024  # Values that stand for multipleOf between two bounds.
LONG_TEXT = 1000  # Texts of a format are not limited to this length or more.
_INT64 = 2**63


class Scalars:
    """Writes the parts of a normal schema that hold no other schemas."""

    def __init__(self, refusals: Refusals) -> None:
        self._refuse = refusals.refuse

    def pattern(self, text: str, where: str) -> Pattern | None:
        """A regular expression, or None if it cannot be enforced and may be left out."""
        try:
            return Pattern(text)
        except PatternError as error:
            if error.invalid:
                raise PositionError(where, str(error)) from None
            self._refuse(where, str(error))
        return None

    def values(self, schema: Schema, where: str) -> Schema:
        """An enum of the values that follow the other keywords."""
        if "pattern" in schema:
            texts = sum(len(value) for value in schema["enum"] if isinstance(value, str))
            if texts * len(schema["pattern"]) > MAX_MATCHING:
                raise PositionError(f"{where}.pattern", "is too long beside so many values")
        values = [value for value in schema["enum"] if self._follows(value, schema, where)]
        if not values:
            raise Contradiction(where, "has an enum or const without a value that follows the other keywords")
        # xgrammar writes floats with 17 digits, as 0.10000000000000001; a range of one value is written as it is.
        ranges = [{"type": "number", "minimum": one, "maximum": one} for one in values if needs_range(one)]
        plain = [one for one in values if not needs_range(one)]
        own: Schema = {"enum": plain}
        if any(isinstance(one, dict | list) for one in plain):
            own[MARK] = json.dumps(plain)
        options = [*([own] if plain else []), *ranges]
        return options[0] if len(options) == 1 else {"anyOf": options}

    def string(self, schema: Schema, where: str) -> Schema:
        """The part of a schema about texts: their length, pattern and format are one pattern."""
        least, most = schema.pop("minLength", 0), schema.pop("maxLength", None)
        if most is not None and least > most:
            raise Contradiction(where, "has a minLength above its maxLength")
        found = schema.pop("pattern", None)
        named = schema.pop("format", None)
        pattern = self.pattern(found, f"{where}.pattern") if found is not None else None
        # A format is an annotation, a pattern and a length are not.
        if pattern is None and named in FORMATS and (text := _format_text(named, least, most)):
            return {**schema, "pattern": text}
        # Lengths are patterns too: xgrammar's own allow control characters, which JSON does not.
        text = self.text(pattern or Pattern(""), least, most, f"{where}.pattern")
        return {**schema, "pattern": text} if text else schema

    def number(self, schema: Schema, where: str) -> Schema:
        """The part of a schema about numbers, with `type` "number" or "integer"."""
        multiple = schema.pop("multipleOf", None)
        if schema["type"] == "integer":
            _whole_bounds(schema)
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None and low > high:
                raise Contradiction(where, "has a minimum above its maximum")
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
            raise Contradiction(f"{where}.multipleOf", "has no multiple within the bounds")
        if len(values) > MAX_MULTIPLES:
            self._refuse(f"{where}.multipleOf", f"cannot be enforced with more than {MAX_MULTIPLES} multiples")
            return schema
        # As values, because vLLM refuses multipleOf.
        return {"enum": list(values)}

    def text(self, pattern: Pattern, least: int, most: int | None, where: str) -> str:
        """The expression for texts of a pattern with `least` to `most` characters; empty if it says nothing."""
        for bounds in ((least, most), (0, None)):
            try:
                return pattern.rewritten(*bounds)
            except PatternError as error:
                if error.invalid:
                    raise Contradiction(where, str(error)) from None
                self._refuse(where, str(error))
        return ""

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
            pattern = self.pattern(schema["pattern"], f"{where}.pattern") if "pattern" in schema else None
            return within(len(value), schema, "minLength", "maxLength") and (not pattern or pattern.matches(value))
        kind = "array" if isinstance(value, list) else "object"
        counts = ("minItems", "maxItems") if kind == "array" else ("minProperties", "maxProperties")
        for name in schema:
            if ENFORCED.get(name) == kind and name not in (*counts, "required"):
                self._refuse(f"{where}.{name}", "cannot be enforced beside enum or const")
        return within(len(value), schema, *counts) and all(name in value for name in schema.get("required", ()))

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
            raise Contradiction(where, "has a range without a value")
        first, last = Fraction(str(low)) * 10**6, Fraction(str(high)) * 10**6
        steps = floor(last) - ceil(first)
        steps -= low == schema.get("exclusiveMinimum") and first == ceil(first)
        steps -= high == schema.get("exclusiveMaximum") and last == floor(last)
        if steps < 0:
            raise PositionError(where, "has a range that needs more than 6 decimals")


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


@lru_cache(maxsize=256)
def _format_text(name: str, least: int, most: int | None) -> str:
    """The pattern of a format with a length; empty if the length cannot be built in."""
    # HttpUrl of pydantic has a maxLength of 2083.
    limit = None if most is not None and most >= LONG_TEXT else most
    try:
        return Pattern(FORMATS[name]).rewritten(least, limit)
    except PatternError:
        return ""
