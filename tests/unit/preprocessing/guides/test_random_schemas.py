# SPDX-License-Identifier: Apache-2.0
"""Random JSON schemas: what a prepared one allows is valid, and the engine takes it; the client's faults are 400s."""

import json
import random
from typing import Any

import jsonschema
import pytest

from common.errors import RequestError
from preprocessing.guides.keywords import JSON_TYPES
from preprocessing.guides.schemas import prepare_schema

xgrammar = pytest.importorskip("xgrammar")
testing = pytest.importorskip("xgrammar.testing")
vllm = pytest.importorskip("vllm.v1.structured_output.backend_xgrammar")

NAMES = ["a", "b", "title", "x"]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, 5, -3, 2.5, 0.1, "", "a", "ab", "abc", "title", "2024-02-29", [], [1], ["a", 1], [1, 1]),
    *({}, {"a": 1}, {"a": "a"}, {"title": 1}, {"title": "x"}, {"a": 1, "b": 2}, {"x": [1]}, {"b": None}),
]  # fmt: skip
INSTANCES = [
    *VALUES,
    *({"a": one} for one in VALUES),
    *({"a": 1, "title": one} for one in VALUES),
    *([one] for one in VALUES),
]
WRONG = [
    None,
    True,
    0,
    -1,
    1.5,
    "x",
    [],
    {},
    [1],
    {"a": 1},
    "#",
    "#/x",
    "(",
    10**30,
    "\0",
    [True],
    [{}],
    {"x": {}},
    {"x": 5},
]
SUBSCHEMAS = (
    "additionalProperties",
    "items",
    "not",
    "contains",
    "if",
    "then",
    "unevaluatedProperties",
    "unevaluatedItems",
)
LISTS = ("anyOf", "allOf", "prefixItems")
COUNTS = ("minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
CHOICES: dict[str, list[Any]] = {
    **{key: [0, 1, 2, 3, 1.0] for key in COUNTS},
    **{key: [0, 1, 2, -1.5, 2.5, 5, 3] for key in BOUNDS},
    "type": [*JSON_TYPES, *JSON_TYPES, ["integer", "null"], ["object", "string"], ["array", "number"]],
    "const": VALUES,
    "pattern": ["^a", "b", "^[a-c]+$", "^ab?$", "c$|^$"],
    "format": ["date", "weird", "email"],
    "multipleOf": [1, 2, 5, 0.1],
    "uniqueItems": [True, False],
    "required": [[], ["a"], ["a", "b"], ["title"]],
    "dependentRequired": [{"a": ["b"]}, {}],
    "propertyNames": [{"pattern": "^[a-c]"}, {"enum": ["a", "title"]}, {"maxLength": 1}, {"type": "string"}, True],
    "$ref": ["#", "#/$defs/one", "#/$defs/again", "#/properties/a"],
    "title": ["x"],
}
KEYWORDS = (*CHOICES, *SUBSCHEMAS, *LISTS, "enum", "properties", "patternProperties")


def random_schema(rng: random.Random, depth: int, wrong: float) -> Any:
    if depth < 0 or rng.random() < 0.05:
        return rng.choice([True, False, {}, {"type": "integer"}, {"type": "string"}, {"type": "object"}])
    names = rng.sample(KEYWORDS, rng.choice((1, 1, 2, 2, 3, 4)))
    if rng.random() < 0.5:
        names.append("type")
    return {name: random_value(rng, name, depth - 1, wrong) for name in names}


def random_value(rng: random.Random, name: str, depth: int, wrong: float) -> Any:
    def part() -> Any:
        return random_schema(rng, depth, wrong)

    if rng.random() < wrong:
        return rng.choice(WRONG)
    if name in CHOICES:
        return rng.choice(CHOICES[name])
    if name in LISTS:
        return [part() for _ in range(rng.randint(1, 3))]
    if name == "enum":
        return rng.sample(VALUES, rng.randint(1, 5))
    if name in SUBSCHEMAS:
        return part()
    keys = NAMES if name == "properties" else ["^a", "b$", "^[a-c]+$", "t"]
    return {key: part() for key in rng.sample(keys, rng.randint(1, 2))}


@pytest.mark.parametrize("wrong", [0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_random_schemas(seed: int, wrong: float) -> None:
    rng = random.Random(seed)
    accepted = refused = 0
    for _ in range(150):
        schema = {"title": "x", **{name: random_value(rng, name, 1, wrong) for name in rng.sample(KEYWORDS, 2)}}
        again = {"type": "object", "properties": {"a": {"$ref": "#/$defs/again"}}}
        schema["$defs"] = {"one": random_schema(rng, 1, wrong), "again": again}
        best_effort = rng.random() < 0.3
        try:
            prepared = prepare_schema(schema, "schema", best_effort=best_effort)
        except RequestError as error:
            assert error.kind == "invalid_request" and error.message.startswith("schema"), error.message
            refused += 1
            continue
        assert not vllm.has_xgrammar_unsupported_json_features(prepared), schema
        grammar = xgrammar.Grammar.from_json_schema(json.dumps(prepared))
        allowed = [
            one
            for one in INSTANCES
            if testing._is_grammar_accept_string(grammar, json.dumps(one, separators=(",", ":")))
        ]
        if not best_effort and not wrong:
            for one in allowed:
                jsonschema.Draft202012Validator(schema).validate(one)
        accepted += len(allowed)
    assert accepted > 200 and refused > 20
