# SPDX-License-Identifier: Apache-2.0
"""Requests made up from the OpenAPI document: some right, some wrong in one place, some wrong in many.

hypothesis makes a few hundred such bodies a second (tests/unit/frontend/endpoints/test_openapi.py); for a million requests
this generator is a plain walk over the schemas with a seeded source of randomness.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.soak.odd_values import FLOATS, HEADERS, HINTS, INTS, ITEMS, JSON, KEYS, PATTERNS, QUERIES, TEXTS, TOOLS
from tests.support.hostile_bodies import DEEP

Schema = Mapping[str, Any]
_REF = "#/components/schemas/"
# How wrong the values of a request are: the chance of each value. Most requests must get past the first check.
_WRONGNESS = (0.0, 0.0, 0.0, 0.01, 0.03, 0.1, 0.4)
_MAX_DEPTH = 12
# The optional fields that a body has at most: with all of them it would always have one that is refused.
_MAX_FIELDS = 6
# Schemas in a request, by the field's name.
_SCHEMA_FIELDS = frozenset({"schema", "parameters", "input_schema", "guided_json", "json"})
_ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW")


@dataclass(frozen=True, slots=True)
class Made:
    """A request. template: its path in the document. target: the path and query that are sent."""

    method: str
    template: str
    target: str
    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


class RequestMaker:
    """Makes requests to all operations of a document.

    models: names of models that answer chats. pooling: the same of those that embed and score texts. No request names
    them to load or unload them.
    """

    def __init__(self, document: Schema, models: Sequence[str], seed: str, pooling: Sequence[str] = ()) -> None:
        self._random = random.Random(seed)  # nosec B311 # no secret is drawn
        self._schemas: Schema = document["components"]["schemas"]
        self._models, self._pooling = tuple(models), tuple(pooling)
        self._wrongness = 0.0
        # What reaches the models is worth most, and an operation with a body more than one without.
        self._operations = [
            (method.upper(), path, about.get("requestBody"))
            for path, item in document["paths"].items()
            for method, about in item.items()
            if method != "parameters"
        ]
        self._weights = [30 if path in _ANSWERS else 8 if body else 1 for _, path, body in self._operations]

    def make(self) -> Made:
        """The next request."""
        draw = self._random
        method, template, about = draw.choices(self._operations, self._weights)[0]
        self._wrongness = draw.choice(_WRONGNESS)
        body = None if about is None else self._body(template, about["content"][JSON]["schema"])
        if draw.random() < 0.01:
            method = draw.choice(_METHODS)
        names = draw.sample(list(HEADERS), draw.choice((0, 0, 0, 1, 2)))
        headers = {name: draw.choice(HEADERS[name]) for name in names}
        return Made(method, template, self._target(template), body, headers)

    def _target(self, template: str) -> str:
        parts = [self._part(template, part) if part.startswith("{") else part for part in template.split("/")]
        query = "?" + "&".join(self._random.choices(QUERIES, k=2)) if self._random.random() < 0.1 else ""
        return "/".join(parts) + query

    def _part(self, template: str, part: str) -> str:
        if part == "{action}":
            return self._random.choice(("load", "unload", "reload", "x"))
        known = () if template.startswith("/admin") else self._models + self._pooling
        text: str = self._random.choice((*known, *TEXTS[:40]))
        raw = quote(text.encode(errors="surrogatepass"), safe=self._random.choice(("", "/:")))
        return raw or "%ff"

    def _body(self, template: str, schema: Schema) -> bytes:
        draw = self._random
        value = self._value(schema)
        if isinstance(value, dict) and draw.random() < 0.95:
            pools = self._pooling and template.endswith(("embeddings", "rerank", "score"))
            name = "base_model_name" if template.endswith("lora_adapter") else "model"
            value[name] = draw.choice(self._pooling if pools else self._models)
        if draw.random() < 0.02:
            value = self._wrong()
        try:
            # What Python writes for NaN, infinite numbers and lone surrogates is part of the attack.
            data = json.dumps(value, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
        except ValueError:
            # Python does not write numbers of so many digits.
            data = b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": ' + b"9" * 5000 + b"}"
        return self._spoilt(data) if draw.random() < 0.03 else data

    def _spoilt(self, data: bytes) -> bytes:
        draw = self._random
        at = draw.randrange(len(data) + 1)
        way = draw.randrange(6)
        if way == 0:
            return data[:at]
        if way == 1:
            return data[:at] + draw.randbytes(draw.choice((1, 1, 3, 40))) + data[at:]
        if way == 2:
            return data[:at] + data[at + 1 :]
        if way == 3:
            return data + data
        return b"\xef\xbb\xbf" + data if way == 4 else data.decode(errors="replace").encode("utf-16")

    def _value(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        draw = self._random
        if draw.random() < self._wrongness or depth > _MAX_DEPTH:
            return self._wrong()
        if (hints := HINTS.get(name)) is not None and draw.random() < 0.8:
            return draw.choice(hints)
        if name == "model":
            return draw.choice((*self._models, *self._pooling, None, *TEXTS[:20]))
        if name in _SCHEMA_FIELDS and draw.random() < 0.8:
            return self._json_schema()
        if name in ("input", "tools") and depth < 3 and draw.random() < 0.3:
            return draw.choices(ITEMS if name == "input" else TOOLS, k=draw.randint(0, 3))
        if "$ref" in schema:
            return self._value(self._schemas[schema["$ref"].removeprefix(_REF)], name, depth + 1)
        if "anyOf" in schema:
            branches = [one for one in schema["anyOf"] if one.get("type") != "null"]
            # Null says the same as nothing, so it is not worth much.
            return None if draw.random() < 0.03 else self._value(draw.choice(branches), name, depth + 1)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return draw.choice(schema["enum"])
        return self._of_type(schema, depth)

    def _of_type(self, schema: Schema, depth: int) -> Any:
        draw, kind = self._random, schema.get("type")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            low = schema.get("minItems", 0)
            count = draw.choice((low, 1, 1, 2, 3)) if draw.random() < 0.98 else draw.choice((17, 130, 1025))
            return [self._value(schema.get("items", {}), "", depth + 1) for _ in range(max(low, count))]
        if kind == "string":
            return draw.choice(TEXTS) if draw.random() < 0.3 else draw.choice(("Hi", "f", "How are you?", "1"))
        if kind in ("integer", "number"):
            low, high = schema.get("minimum", -100), schema.get("maximum", 100)
            edge = draw.choice((low, high, min(max(1, low), high), min(low + 7, high)))
            return edge if kind == "integer" else draw.choice((edge, draw.uniform(low, high)))
        return draw.random() < 0.5 if kind == "boolean" else self._anything(depth)

    def _object(self, schema: Schema, depth: int) -> dict[str, Any]:
        draw = self._random
        properties, required = schema.get("properties", {}), schema.get("required", ())
        optional = [name for name in properties if name not in required]
        names = [*required, *draw.sample(optional, min(len(optional), draw.choice((0, 1, 1, 2, 3, _MAX_FIELDS))))]
        made = {name: self._value(properties.get(name, {}), name, depth + 1) for name in names}
        if not properties:
            about = schema.get("additionalProperties")
            inner = about if isinstance(about, Mapping) else {}
            made |= {key: self._value(inner, "", depth + 1) for key in draw.sample(KEYS, draw.randint(0, 3))}
        if "role" in made and draw.random() < 0.7:
            made.setdefault("content", "Hi")
        if made and draw.random() < self._wrongness:
            del made[draw.choice(list(made))]
        if draw.random() < self._wrongness:
            made[draw.choice(KEYS)] = self._wrong()
        return made

    def _wrong(self) -> Any:
        draw = self._random
        way = draw.randrange(12)
        if way < 3:
            return draw.choice(TEXTS)
        if way < 5:
            return draw.choice(INTS)
        if way < 6:
            return draw.choice(FLOATS)
        if way < 8:
            return draw.choice((None, True, False, [], {}, [[]], [None], {"": None}))
        if way < 9:
            return DEEP(draw.choice((3, 30, 70, 300)))
        if way < 10:
            return [draw.choice((0, "x", None, {}, []))] * draw.choice((1, 17, 1025, 3000))
        if way < 11:
            return {f"k{i}": i for i in range(draw.choice((1, 20, 1100)))}
        return self._anything(0)

    def _anything(self, depth: int) -> Any:
        draw = self._random
        way = draw.randrange(8 if depth < _MAX_DEPTH else 6)
        if way < 2:
            return draw.choice(TEXTS[:40])
        if way < 4:
            return draw.choice(INTS) if way == 2 else draw.choice(FLOATS)
        if way < 6:
            return draw.choice((None, True, False, [], {}))
        if way == 6:
            return [self._anything(depth + 2) for _ in range(draw.randint(0, 3))]
        return {draw.choice(KEYS): self._anything(depth + 2) for _ in range(draw.randint(0, 3))}

    def _json_schema(self, depth: int = 0) -> Any:
        draw = self._random
        if draw.random() < self._wrongness:
            return self._wrong()
        kind = draw.choice(
            ("object", "string", "integer", "array", "any", "odd") if depth < 4 else ("string", "integer")
        )
        if kind == "object" or depth == 0:
            names = draw.sample(("a", "b", "", "\u00e9", "x y", "$ref"), draw.randint(0, 3))
            properties = {name: self._json_schema(depth + 1) for name in names}
            return {"type": "object", "properties": properties} | draw.choice(
                ({}, {"required": names}, {"additionalProperties": False}, {"required": ["zz"]}, {"minProperties": 5})
            )
        if kind == "string":
            limits: Sequence[Schema] = (
                *(
                    {},
                    {"maxLength": 5},
                    {"pattern": draw.choice(PATTERNS)},
                    {"format": "date"},
                    {"enum": ["a", 1, None]},
                ),
                *({"minLength": 9, "maxLength": 2}, {"const": draw.choice(TEXTS[:30])}, {"enum": []}),
            )
            return {"type": "string", **draw.choice(limits)}
        if kind == "integer":
            return {"type": "integer"} | draw.choice(
                ({}, {"minimum": 0}, {"minimum": 9, "maximum": 1}, {"multipleOf": 3})
            )
        if kind == "array":
            return {"type": "array", "items": self._json_schema(depth + 1)} | draw.choice(
                ({}, {"maxItems": 3}, {"minItems": 5, "maxItems": 1}, {"uniqueItems": True}, {"minItems": 10**9})
            )
        if kind == "any":
            return {draw.choice(("anyOf", "oneOf", "allOf")): [self._json_schema(depth + 1) for _ in range(2)]}
        return draw.choice(
            (
                *({}, True, False, {"$ref": "#"}, {"$ref": "#/$defs/x"}, {"type": ["string", "null"]}, {"type": "x"}),
                *({"not": {}}, {"if": {}, "then": False}, {"patternProperties": {"(": {}}}, {"$ref": "http://x/y"}),
                *({"prefixItems": [{}, {}]}, {"type": []}, {"properties": []}, {"enum": {}}, {"const": float("nan")}),
            )
        )
