# SPDX-License-Identifier: Apache-2.0
"""Keywords of JSON schemas: enforced, ignored or refused with their path, the same wherever a schema may stand."""

import enum
import json
from datetime import date, datetime
from typing import Annotated, Any, Literal, Union

import jsonschema
import pytest
from pydantic import BaseModel, Field, HttpUrl

from common.errors import RequestError
from preprocessing.guides.build import check_guide
from preprocessing.guides.keywords import ENFORCED, FORMATS, REFUSED, prepare_schema
from tests.support.guides import QWEN3, guide_of, refused, tool

xgrammar = pytest.importorskip("xgrammar")
testing = pytest.importorskip("xgrammar.testing")
vllm = pytest.importorskip("vllm.v1.structured_output.backend_xgrammar")

A, B = {"a": {"type": "integer"}}, {"b": {"type": "string"}}

# Schema, texts that it allows, and texts that it does not.
WORKING: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({}, ["5", "[]"], []),
    ({"type": "object"}, ["{}", '{"a": 1}'], ["[]"]),
    ({"type": "array", "minItems": 1}, ["[1]", '["a", 2]'], ["[]"]),
    ({"type": "array", "items": False}, ["[]"], ["[1]"]),
    (
        {"type": "object", "properties": {"x": {"type": "array", "minItems": 1}}, "required": ["x"]},
        ['{"x": [1]}'],
        ['{"x": []}'],
    ),
    ({"type": "object", "minProperties": 1}, ['{"a": 1}'], ["{}"]),
    ({"type": "object", "maxProperties": 1}, ["{}", '{"a": 1}'], ['{"a": 1, "b": 2}']),
    ({"type": "array", "items": [{"type": "integer"}, {"type": "string"}]}, ['[1, "a"]', '[1, "a", 3]'], ['["a", 1]']),
    ({"type": "array", "items": [A["a"]], "additionalItems": False}, ["[1]"], ["[1, 2]", '["a"]']),
    ({"type": "array", "prefixItems": [A["a"]], "items": False}, ["[1]"], ["[1, 2]"]),
    ({"allOf": [{"type": "string"}, {"maxLength": 2}]}, ['"a"'], ['"aaa"', "5"]),
    ({"allOf": [{"type": "string", "maxLength": 2}], "title": "x"}, ['"a"'], ['"aaa"', "5"]),
    (
        {"allOf": [{"properties": A, "required": ["a"]}, {"type": "object", "properties": B, "required": ["b"]}]},
        ['{"a": 1, "b": "x"}'],
        ['{"a": 1}', "5", '{"a": "x", "b": "x"}'],
    ),
    ({"allOf": [{"$ref": "#/$defs/a"}], "description": "x", "$defs": A}, ["5"], ['"a"']),
    ({"type": "object", "required": ["a"]}, ['{"a": 1}'], ["{}"]),
    (
        {"type": "object", "required": ["a"], "additionalProperties": {"type": "integer"}},
        ['{"a": 1}'],
        ["{}", '{"a": "x"}'],
    ),
    ({"type": "object", "properties": A, "required": ["a", "b"]}, ['{"a": 1, "b": 2}'], ['{"a": 1}']),
    ({"type": "object", "properties": {"a": False}}, ["{}"], ['{"a": 1}']),
    ({"minimum": 5}, ["6"], ["2"]),
    ({"maxLength": 2}, ['"aa"'], ['"aaa"']),
    ({"pattern": "^a$"}, ['"a"'], ['"aaa"']),
    ({"type": "string", "format": "weird"}, ['"x"'], ["5"]),
    ({"type": "string", "format": "date"}, ['"2024-01-01"'], ['"x"']),
    ({"type": "string", "format": "uri", "minLength": 1, "maxLength": 9}, ['"http://x"'], ['""', '"http://xyz"']),
    ({"type": "string", "enum": ["a", 1]}, ['"a"'], ["1"]),
    ({"type": "integer", "const": 5}, ["5"], ["6"]),
    ({"enum": ["a", 1, None]}, ['"a"', "1", "null"], ["2"]),
    ({"type": ["integer", "null"], "minimum": 3}, ["5", "null"], ["1", '"a"']),
    ({"anyOf": [A["a"], {"type": "null"}]}, ["5", "null"], ['"a"']),
    (
        {"type": "object", "anyOf": [{"type": "object", "properties": A}, {"type": "object", "properties": B}]},
        ['{"a": 1}'],
        ["5"],
    ),
    ({"type": "object", "properties": {"n": {"$ref": "#"}}}, ['{"n": {}}'], ['{"n": 5}']),
    ({"type": "object", "patternProperties": {"^x": A["a"]}}, ['{"x": 1}'], ['{"x": "s"}']),
    ({"type": "object", "propertyNames": {"pattern": "^x"}}, ['{"x": 1}'], ['{"y": 1}']),
    ({"type": "array", "uniqueItems": False, "items": A["a"]}, ["[1, 1]"], ['["a"]']),
    # Names of properties are no keywords.
    (
        {"type": "object", "properties": {"not": A["a"], "enum": A["a"], "pattern": A["a"]}},
        ['{"not": 1}'],
        ['{"not": "a"}'],
    ),
    ({"type": "null", "title": "x", "examples": [1], "x-any": {"not": 1}, "nullable": True}, ["null"], ["5"]),
]

# Schema, the path of its part that is refused, and words of the message.
REFUSALS: list[tuple[Any, str, str]] = [
    ({"type": "integer", "multipleOf": 7}, ".multipleOf", "cannot be enforced"),
    ({"type": "array", "items": {"not": {"type": "integer"}}}, ".items.not", "cannot be enforced"),
    ({"type": "array", "uniqueItems": True}, ".uniqueItems", "cannot be enforced"),
    ({"properties": {"a": {"if": {}, "then": {}}}}, ".properties.a.if", "cannot be enforced"),
    ({"type": "string", "pattern": "^a", "maxLength": 5}, ".pattern", "maxLength"),
    ({"$defs": {"x": {"contains": {}}}}, ".$defs.x.contains", "cannot be enforced"),
    ({"anyOf": [{"type": "integer"}, {"dependentRequired": {"a": ["b"]}}]}, ".anyOf[1].dependentRequired", ""),
    ({"allOf": [{"maxLength": 1}, {"maxLength": 2}]}, ".allOf[1].maxLength", "another part"),
    (
        {"allOf": [{"properties": A, "additionalProperties": False}, {"properties": B}]},
        ".allOf",
        "additionalProperties",
    ),
    ({"allOf": [{"not": {}}]}, ".not", "cannot be enforced"),
    ({"anyOf": [{}], "maximum": 3}, ".maximum", "beside anyOf"),
    ({"$ref": "#/$defs/a", "maximum": 3, "$defs": A}, ".maximum", "beside $ref"),
    ({"enum": [1, 2], "minimum": 2}, ".minimum", "beside enum"),
    ({"minimum": 2, "maxLength": 3}, "", "no type"),
    ({"$ref": "http://x/y"}, "", "outside"),
    ({"$ref": "#/$defs/b", "$defs": A}, "", "to nothing"),
    ({"$ref": "#/$defs/b", "$defs": {"b": {"$ref": "#/$defs/b"}}}, "", "itself"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "", "minimum above its maximum"),
    ({"type": "array", "minItems": 3, "maxItems": 1}, "", "minItems above"),
    ({"type": "array", "minItems": 2, "items": False}, ".minItems", "more than"),
    ({"type": "object", "minProperties": 2, "properties": A, "additionalProperties": False}, ".minProperties", "more"),
    ({"type": "object", "required": ["b"], "additionalProperties": False}, ".required", "'b'"),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, ".properties.a", "no value"),
    ({"type": "object", "properties": A, "patternProperties": {"^x": {}}}, ".patternProperties", "beside"),
    ({"type": "object", "properties": A, "propertyNames": {"pattern": "x"}}, ".propertyNames", "beside"),
    ({"type": "string", "enum": [1]}, ".enum", "type"),
    ({"type": "string", "const": 1}, ".const", "type"),
    ({"minItems": "x"}, ".minItems", "a number"),
    ({"required": "a"}, ".required", "an array"),
    ({"properties": {"a": {"type": "dict"}}}, ".properties.a.type", "must be one of"),
    ({"properties": {"a": 5}}, ".properties.a", "an object"),
    ({"items": {"anyOf": 5}}, ".items.anyOf", "an array"),
]

INSTANCES = [
    *("null", "true", "0", "1", "5", "2.5", '""', '"a"', '"aaa"', '"2024-01-01"', '"http://x"', "[]", "[1]", '["a"]'),
    *('[1, "a"]', "[1, 2, 3]", "{}", '{"a": 1}', '{"a": "x"}', '{"b": "x"}', '{"a": 1, "b": "x"}', '{"x": 1}'),
    *('{"x": "s"}', '{"n": {"n": {}}}', '{"not": 1}', '{"a": [1]}', '{"x": [1]}'),
]


def allows(schema: dict[str, Any], text: str) -> bool:
    prepared = prepare_schema(schema, "schema")
    assert not vllm.has_xgrammar_unsupported_json_features(prepared)
    return bool(testing._is_grammar_accept_string(xgrammar.Grammar.from_json_schema(json.dumps(prepared)), text))


@pytest.mark.parametrize(("schema", "good", "bad"), WORKING, ids=lambda value: json.dumps(value)[:80])
def test_schemas_that_work(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    before = json.dumps(schema)
    assert [text for text in good if not allows(schema, text)] == []
    assert [text for text in bad if allows(schema, text)] == []
    assert json.dumps(schema) == before, "the request's own schema is not changed"


@pytest.mark.parametrize("schema", [schema for schema, _, _ in WORKING], ids=lambda value: json.dumps(value)[:80])
def test_what_a_prepared_schema_allows_is_valid(schema: dict[str, Any]) -> None:
    # `items` as an array is of earlier drafts.
    draft = (
        jsonschema.Draft201909Validator if isinstance(schema.get("items"), list) else jsonschema.Draft202012Validator
    )
    for text in INSTANCES:
        if allows(schema, text):
            draft(schema).validate(json.loads(text))


@pytest.mark.parametrize(("schema", "path", "words"), REFUSALS, ids=lambda value: json.dumps(value)[:80])
def test_schemas_that_are_refused(schema: dict[str, Any], path: str, words: str) -> None:
    """The same path and words at each place that takes a schema."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    parameters = {"type": "object", "properties": {"p": schema}}
    strict = {"tools": [tool("f", parameters, strict=True)]}
    forced = {"tools": [tool("f", parameters)], "tool_choice": "required"}
    references = "$ref" in json.dumps(schema)
    for where, error in (
        ("response_format.json_schema.schema", refused(response_format=wanted)),
        ("structured_outputs.json", refused(structured_outputs={"json": schema})),
        *(
            ("tools[0].function.parameters.properties.p", refused(QWEN3, **fields))
            for fields in (strict, forced)
            if not references
        ),
    ):
        assert error.kind == "invalid_request" and error.param == where.split(".")[0].split("[")[0]
        assert error.message.startswith(f"{where}{path} ") and words in error.message, error.message
    with pytest.raises(RequestError) as direct:
        check_guide("json_schema", json.dumps(schema))
    assert direct.value.param == "guided_decoding_guide"
    # Without `strict` a tool's schema is only shown to the model.
    assert guide_of(QWEN3, tools=[tool("f", parameters)]) is None


def test_a_keyword_is_in_one_table() -> None:
    assert not set(ENFORCED) & set(REFUSED)
    assert vllm.STRING_SUPPORTED_FORMATS | {"hostname"} >= FORMATS


class Color(enum.Enum):
    RED, BLUE = "red", "blue"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(9, ge=1, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Annotated[str, Field(min_length=1, max_length=9)]


class Node(BaseModel):
    value: float
    children: list["Node"] = []


class Everything(BaseModel):
    url: HttpUrl
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    short: Annotated[str, Field(max_length=5)]
    numbers: Annotated[list[int], Field(min_length=1, max_length=3)]
    pair: tuple[int, str]
    mapping: dict[str, int]
    maybe: int | None = None
    either: int | str
    color: Color
    day: date
    moment: datetime
    pet: Annotated[Union[Cat, Dog], Field(discriminator="kind")]  # noqa: UP007 # as clients write it
    tree: Node
    anything: Any = None


EXAMPLE = {
    "url": "https://example.com/", "code": "DE", "short": "abc", "numbers": [1, 2], "pair": [1, "x"],
    "mapping": {"k": 1}, "maybe": None, "either": "x", "color": "red", "day": "2024-01-31",
    "moment": "2024-01-31T10:00:00Z", "pet": {"kind": "dog", "name": "Rex"},
    "tree": {"value": 1.5, "children": [{"value": 2, "children": []}]}, "anything": [1],
}  # fmt: skip


def test_the_schema_of_a_pydantic_model() -> None:
    schema = Everything.model_json_schema()
    assert allows(schema, json.dumps(EXAMPLE))
    wrong: dict[str, Any] = {
        "code": "de", "short": "abcdef", "numbers": [], "pair": ["x", 1], "mapping": {"k": "v"}, "either": None,
        "color": "green", "day": "today", "pet": {"kind": "cow"}, "tree": {"children": []},
    }  # fmt: skip
    for name, value in wrong.items():
        assert not allows(schema, json.dumps(EXAMPLE | {name: value})), name
