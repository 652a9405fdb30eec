# SPDX-License-Identifier: Apache-2.0
"""JSON schemas: enforced, ignored or refused with their path, the same wherever a schema may stand."""

import json
import re
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Union

import jsonschema
import pytest
from pydantic import BaseModel, Field, HttpUrl

from common.errors import RequestError
from preprocessing.guides.build import check_guide
from preprocessing.guides.formats import FORMATS
from preprocessing.guides.keywords import ENFORCED, REFUSED
from preprocessing.guides.schemas import prepare_schema
from tests.support.guides import QWEN3, guide_of, refused, tool
from tests.support.schema_models import Cat, Color, Dog, Node

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
    ({"type": "string", "minLength": 1, "maxLength": 3}, ['"a"', '"a/é"'], ['""', '"abcd"', '"\t"']),
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
    # Several parts that hold together.
    ({"const": "a", "enum": ["a"], "type": "string"}, ['"a"'], ['"b"']),
    ({"const": 1, "enum": [1.0, 2]}, ["1"], ["2"]),
    ({"type": "integer", "enum": [1, 2, 30, "x"], "maximum": 9, "exclusiveMinimum": 1}, ["2"], ["1", "30", '"x"']),
    ({"enum": ["a", "bcd", 5], "pattern": "^b", "minLength": 2}, ['"bcd"', "5"], ['"a"']),
    ({"enum": [0.3, 0.25], "multipleOf": 0.1}, ["0.3"], ["0.25"]),
    (
        {"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"enum": [1, True]}}}]},
        ['{"a": 1}'],
        ['{"a": true}'],
    ),
    ({"enum": [0.1, 2.5, "x"]}, ["0.1", "2.5", '"x"'], ["0.2", "2"]),
    ({"enum": [{"title": 1}, [1, 2], []], "minItems": 1}, ['{"title":1}', "[1,2]"], ["[]"]),
    ({"$ref": "#/$defs/a", "type": "integer", "maximum": 3, "$defs": A}, ["2"], ["5", '"a"']),
    (
        {"$ref": "#/$defs/n", "type": "object", "$defs": {"n": {"properties": {"n": {"$ref": "#/$defs/n"}}}}},
        ['{"n": {}}'],
        ["5", '{"n": 5}'],
    ),
    ({"allOf": [{"maxLength": 1}, {"maxLength": 2, "minLength": 1}]}, ['"a"'], ['""', '"aa"']),
    (
        {"allOf": [{"items": A["a"]}, {"prefixItems": [{"minimum": 2}], "maxItems": 2}]},
        ["[2, 1]"],
        ["[1]", '["a"]', "[2, 2, 2]"],
    ),
    ({"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]}, ["2"], ["1", "3"]),
    (
        {"allOf": [{"anyOf": [{"minimum": 5}, {"maximum": 1}]}, {"anyOf": [{"minimum": 8}, {"maximum": 0}]}]},
        ["9", "-1"],
        ["6", "1"],
    ),
    (
        {"type": "object", "properties": {**A, **B}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        ['{"a": 1}', '{"b": "x"}', '{"a": 1, "b": "x"}'],
        ["{}"],
    ),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}], "type": "string", "maxLength": 1}, ['"a"'], ['"aa"', "1"]),
    ({"oneOf": [{"minimum": 5}, {"const": 1}], "maximum": 7}, ["5", "1"], ["8", "2"]),
    ({"anyOf": [{}], "maximum": 3}, ["2"], ["5"]),
    ({"minimum": 2, "maxLength": 3}, ["2", '"a"'], ["1", '"aaaa"']),
    # Names of properties.
    (
        {"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": A["a"]},
        ['{"k": 1}'],
        ['{"k": "s"}'],
    ),
    ({"type": "object", "propertyNames": True}, ['{"k": 1}'], []),
    (
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": A["a"]},
        ["{}", '{"a": 1, "b": 2}'],
        ['{"a": "x"}', '{"c": 1}'],
    ),
    (
        {"type": "object", "propertyNames": {"$ref": "#/$defs/n"}, "$defs": {"n": {"enum": ["a"]}}},
        ['{"a": 1}'],
        ['{"c": 1}'],
    ),
    (
        {"type": "object", "propertyNames": {"pattern": "^x"}, "additionalProperties": A["a"]},
        ['{"xy": 1}'],
        ['{"y": 1}', '{"x": "s"}'],
    ),
    (
        {"type": "object", "propertyNames": {"maxLength": 2}, "additionalProperties": A["a"]},
        ['{"xy": 1}'],
        ['{"xyz": 1}', '{"x": "s"}'],
    ),
    (
        {"type": "object", "propertyNames": {"format": "date"}, "additionalProperties": A["a"]},
        ['{"2024-02-29": 1}'],
        ['{"x": 1}'],
    ),
    # References.
    ({"$ref": "#/$defs/a~1b%20~0", "$defs": {"a/b ~": A["a"]}}, ["5"], ['"a"']),
    ({"$ref": "#/prefixItems/0", "prefixItems": [A["a"]]}, ["5"], ['"a"']),
    (
        {"$id": "http://x/y", "properties": {"n": {"$ref": "http://x/y"}}, "additionalProperties": False},
        ['{"n": {}}'],
        ['{"n": 1}'],
    ),
    ({"$ref": "#num", "$defs": {"x": {"$anchor": "num", "type": "integer"}}}, ["5"], ['"a"']),
    (
        {"items": {"$ref": "#/$defs/b"}, "$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"type": "null"}}},
        ["[null]"],
        ["[1]"],
    ),
    # What changes nothing.
    ({"type": "array", "minItems": 1.0, "maxItems": 2.0, "items": A["a"]}, ["[1]"], ["[]", "[1, 2, 3]"]),
    ({"type": "object", "dependencies": {}, "dependentRequired": {}, "required": []}, ["{}"], []),
    ({"type": "object", "dependentRequired": {"a": ["b"]}, "required": ["b"]}, ['{"b": 1}'], ["{}"]),
    ({"type": "integer", "uniqueItems": True, "dependentRequired": {"a": ["b"]}}, ["5"], ['"a"']),
    ({"type": "array", "uniqueItems": True, "maxItems": 1}, ["[1]"], ["[1, 1]"]),
    ({"not": False, "if": {"type": "string"}}, ["5"], []),
    ({"type": "array", "contains": {"type": "null"}, "minContains": 0}, ["[1]"], []),
    ({"items": [True, {}], "type": "array", "additionalItems": True}, ["[1, 2, 3]"], []),
    ({"type": "array", "prefixItems": [True, False]}, ["[1]"], ["[1, 2]"]),
    ({"type": "array", "prefixItems": [A["a"], A["a"]], "maxItems": 1}, ["[1]"], ["[1, 2]"]),
    ({"anyOf": [True, False]}, ["5"], []),
    ({"anyOf": [A["a"], False]}, ["5"], ['"a"']),
    ({"type": ["number", "integer", "number"]}, ["5", "5.5"], ['"a"']),
    ({"properties": {"n": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["n"]}, ['{"n": null}'], ["{}"]),
    # Numbers.
    ({"type": "integer", "multipleOf": 7, "minimum": -7, "maximum": 14}, ["14", "0", "-7"], ["8", "21"]),
    ({"type": "integer", "multipleOf": 1.0, "minimum": 0}, ["14", "0"], ["-1"]),
    ({"type": "integer", "multipleOf": 5, "exclusiveMinimum": 0, "maximum": 10}, ["5", "10"], ["0", "15", "7"]),
    ({"type": "integer", "minimum": 1.5, "exclusiveMaximum": 4.5}, ["2", "4"], ["1", "5"]),
    ({"type": "integer", "minimum": -1e30, "maximum": 3}, ["3", "-5"], ["4"]),
    ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, ["0.5", "1"], ["0", "1.5"]),
    # Texts.
    ({"type": "string", "pattern": "^https://"}, ['"https://a b"'], ['"http://a"', '"x https://"']),
    ({"type": "string", "pattern": "a|b$"}, ['"xax"', '"xb"'], ['"bx"']),
    ({"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 3}, ['"ab"', '"abc"'], ['"a"', '"abcd"']),
    ({"type": "string", "pattern": "^a.c$", "minLength": 1, "maxLength": 9}, ['"abc"'], ['"ac"']),
    ({"type": "string", "pattern": "^a", "format": "weird"}, ['"abc"'], ['"x"']),
    ({"type": "string", "pattern": '^a"b$'}, [r'"a\"b"'], ['"a"b"', '"ab"']),
    ({"type": "string", "pattern": "^(-[a-z]+)?$"}, ['""', '"-a"'], ['"-"']),
    ({"type": "null", "title": "x", "examples": [1], "x-any": {"not": 1}, "nullable": True}, ["null"], ["5"]),
]

# Schema, the path of its part that cannot be enforced, and words of the message.
UNENFORCED: list[tuple[dict[str, Any], str, str]] = [
    ({"type": "array", "items": {"not": {"type": "integer"}}}, ".items.not", "cannot be enforced"),
    ({"type": "array", "uniqueItems": True}, ".uniqueItems", "cannot be enforced"),
    ({"properties": {"a": {"if": {}, "then": {}}}}, ".properties.a.if", "cannot be enforced"),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"contains": {}}}}, ".$defs.x.contains", "cannot be enforced"),
    ({"anyOf": [{"type": "integer"}, {"dependentRequired": {"a": ["b"]}}]}, ".anyOf[1].dependentRequired", "cannot"),
    ({"allOf": [{"type": "string"}, {"not": {}}]}, ".allOf[1].not", "cannot be enforced"),
    ({"allOf": [{"properties": A}, {"properties": {"a": {"not": {}}}}]}, ".allOf[1].properties.a.not", "cannot"),
    ({"type": "number", "multipleOf": 0.01}, ".multipleOf", "of an integer"),
    ({"type": "integer", "multipleOf": 7}, ".multipleOf", "a minimum and a maximum"),
    ({"type": "integer", "multipleOf": 5, "minimum": 0}, ".multipleOf", "a minimum and a maximum"),
    ({"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 10000}, ".multipleOf", "more than 1024"),
    ({"type": "string", "pattern": "a", "maxLength": 5}, ".pattern", "maxLength"),
    ({"type": "string", "pattern": "^(?!a)"}, ".pattern", "lookahead"),
    ({"type": "string", "pattern": r"^\p{L}+$"}, ".pattern", "does not know"),
    ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, ".pattern", "another part"),
    ({"type": "object", "properties": A, "patternProperties": {"^x": {}}}, ".patternProperties", "beside"),
    ({"type": "object", "properties": A, "propertyNames": {"pattern": "x"}}, ".propertyNames", "beside"),
    ({"type": "object", "properties": {"a": False}, "additionalProperties": True}, ".properties", "false"),
    ({"enum": [{"a": 1}], "properties": A}, ".properties", "beside enum"),
]

# Schema, the path of its part that is invalid or contradicts another, and words of the message.
INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"$ref": "http://x/y"}, "", "outside"),
    ({"$ref": "#/$defs/b", "$defs": A}, "", "to nothing"),
    ({"$ref": "#nothing"}, "", "to nothing"),
    ({"$ref": "#/$defs/b", "$defs": {"b": {"$ref": "#/$defs/b"}}}, "", "itself"),
    ({"$ref": "#/$defs/b", "$defs": {"b": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "null"}]}}}, ".$defs.b", "own"),
    (
        {"$ref": "#/$defs/b", "$defs": {"b": {"properties": {"n": {"$ref": "#/$defs/b"}}, "required": ["n"]}}},
        ".$defs.b",
        "ends",
    ),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "", "minimum above its maximum"),
    ({"type": "number", "minimum": 5, "exclusiveMaximum": 5}, "", "without a value"),
    ({"type": "number", "minimum": 1e-9, "maximum": 2e-9}, "", "6 decimals"),
    ({"type": "integer", "minimum": 1e30}, "", "64 bits"),
    ({"type": "array", "minItems": 3, "maxItems": 1}, "", "minItems above"),
    ({"type": "array", "minItems": 2, "items": False}, ".minItems", "more than"),
    ({"type": "string", "minLength": 3, "maxLength": 1}, "", "minLength above"),
    ({"type": "string", "pattern": "^abc$", "maxLength": 2}, ".pattern", "no text of the length"),
    ({"type": "object", "minProperties": 2, "properties": A, "additionalProperties": False}, ".minProperties", "more"),
    ({"type": "object", "maxProperties": 0, "required": ["a"]}, ".maxProperties", "less"),
    ({"type": "object", "required": ["b"], "additionalProperties": False}, ".required", "'b'"),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, ".required", "'a'"),
    (
        {"allOf": [{"properties": A, "additionalProperties": False}, {"properties": B, "required": ["b"]}]},
        ".required",
        "'b'",
    ),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "", "type contradict"),
    ({"type": "string", "enum": [1]}, "", "enum or const"),
    ({"type": "string", "const": 1}, "", "enum or const"),
    ({"const": "a", "enum": ["b"]}, ".const", "among"),
    ({"enum": []}, ".enum", "empty"),
    ({"anyOf": []}, ".anyOf", "empty"),
    ({"minItems": "x"}, ".minItems", "a number"),
    ({"minItems": 1.5}, ".minItems", "whole"),
    ({"minLength": -1}, ".minLength", "whole"),
    ({"exclusiveMinimum": True}, ".exclusiveMinimum", "a number"),
    ({"multipleOf": 0}, ".multipleOf", "greater"),
    ({"type": "integer", "maximum": -(10**400)}, ".maximum", "too large"),
    ({"type": "number", "multipleOf": 10**400}, ".multipleOf", "too large"),
    ({"exclusiveMinimum": 10**309}, ".exclusiveMinimum", "too large"),
    ({"required": "a"}, ".required", "an array"),
    ({"required": [1]}, ".required[0]", "a string"),
    ({"type": []}, ".type", "empty"),
    ({"properties": {"a": {"type": "dict"}}}, ".properties.a.type", "must be one of"),
    ({"properties": {"a": 5}}, ".properties.a", "an object"),
    ({"items": {"anyOf": 5}}, ".items.anyOf", "an array"),
    ({"uniqueItems": "yes"}, ".uniqueItems", "a boolean"),
    ({"pattern": "a{2,1}"}, ".pattern", "order"),
    ({"pattern": "(a"}, ".pattern", "without its )"),
    ({"patternProperties": {"[": {}}}, ".patternProperties.[", "without its ]"),
]

INSTANCES = [
    *("null", "true", "0", "1", "2", "5", "2.5", '""', '"a"', '"aaa"', '"2024-01-01"', '"http://x"', "[]", "[1]"),
    *('["a"]', "[1,2]", "[1,1,1]", "{}", '{"a":1}', '{"a":"x"}', '{"b":"x"}', '{"a":1,"b":"x"}', '{"x":1}', '{"y":1}'),
    *('{"x":"s"}', '{"n":{"n":{}}}', '{"n":null}', '{"not":1}', '{"a":[1]}', '{"x":[1]}', '{"title":1}', '"-"', "7"),
]


def prepared(schema: dict[str, Any], **options: bool) -> dict[str, Any]:
    """The schema for the engine, which vLLM would take."""
    found = prepare_schema(schema, "schema", **options)
    assert not vllm.has_xgrammar_unsupported_json_features(found)
    return found


def allows(schema: dict[str, Any], text: str, **options: bool) -> bool:
    grammar = xgrammar.Grammar.from_json_schema(json.dumps(prepared(schema, **options)))
    return bool(testing._is_grammar_accept_string(grammar, text))


def places(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Requests with the schema, by its position in them."""
    parameters = {"type": "object", "properties": {"p": schema}}
    whole: dict[str, dict[str, Any]] = {
        "response_format.json_schema.schema": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        },
        "structured_outputs.json": {"structured_outputs": {"json": schema}},
    }
    if "$ref" in json.dumps(schema):
        return whole
    tools = [tool("f", parameters, strict=True)]
    return {**whole, "tools[0].function.parameters.properties.p": {"answer_format": QWEN3, "tools": tools}}


def best_efforts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests that ask for the schema as well as possible."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": False}}
    parameters = {"type": "object", "properties": {"p": schema}}
    if "$ref" in json.dumps(schema):
        return [{"response_format": wanted}]
    forced = {"answer_format": QWEN3, "tools": [tool("f", parameters)], "tool_choice": "required"}
    return [{"response_format": wanted}, forced]


def check_refused(error: RequestError, where: str, words: str) -> None:
    assert error.kind == "invalid_request" and error.param == where.split(".")[0].split("[")[0]
    assert error.message.startswith(f"{where} ") and words in error.message, error.message


@pytest.mark.parametrize(("schema", "good", "bad"), WORKING, ids=lambda value: json.dumps(value)[:80])
def test_schemas_that_work(schema: dict[str, Any], good: list[str], bad: list[str]) -> None:
    before = json.dumps(schema)
    assert [text for text in good if not allows(schema, text)] == []
    assert [text for text in bad if allows(schema, text)] == []
    assert prepared(schema, best_effort=True) == prepared(schema)
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


@pytest.mark.parametrize(("schema", "path", "words"), UNENFORCED, ids=lambda value: json.dumps(value)[:80])
def test_what_cannot_be_enforced(schema: dict[str, Any], path: str, words: str) -> None:
    """A 400 with the same path at each place, and left out where the client asks for best effort only."""
    for where, fields in places(schema).items():
        check_refused(refused(**fields), where + path, words)
    with pytest.raises(RequestError) as direct:
        check_guide("json_schema", json.dumps(schema))
    check_refused(direct.value, f"guided_decoding_guide{path}", words)
    for fields in best_efforts(schema):
        assert guide_of(**fields) is not None
    assert not vllm.has_xgrammar_unsupported_json_features(prepared(schema, best_effort=True))
    # Without `strict` a tool's schema is only shown to the model.
    assert guide_of(QWEN3, tools=[tool("f", {"type": "object", "properties": {"p": schema}})]) is None


@pytest.mark.parametrize(("schema", "path", "words"), INVALID, ids=lambda value: json.dumps(value)[:80])
def test_invalid_schemas(schema: dict[str, Any], path: str, words: str) -> None:
    for where, fields in places(schema).items():
        check_refused(refused(**fields), where + path, words)
    for fields in best_efforts(schema):
        refused(**fields)


@pytest.mark.parametrize(
    "schema", [{"anyOf": [False]}, {"allOf": [{}, False]}, {"$ref": "#/$defs/a", "$defs": {"a": False}}]
)
def test_schemas_that_allow_nothing(schema: dict[str, Any]) -> None:
    check_refused(refused(structured_outputs={"json": schema}), "structured_outputs.json", "no value")
    assert allows({"properties": {"a": {"anyOf": [False]}, "b": {}}}, '{"b": 1}')


def test_contradicting_alternatives_are_left_out() -> None:
    again = {"type": "object", "properties": {"n": {"$ref": "#/$defs/again"}}}
    schema = {
        "properties": {"kind": {"enum": ["a", "b"]}, "again": {"$ref": "#/$defs/again"}},
        "required": ["kind"],
        "anyOf": [{"properties": {"kind": {"const": kind}}} for kind in ("c", "a", "d")],
        "$defs": {"again": again},
    }
    found = prepared(schema)
    assert list(found["$defs"]) == ["d0"] and found["properties"]["kind"] == {"enum": ["a"]}
    assert allows(schema, '{"kind": "a", "again": {"n": {}}}') and not allows(schema, '{"kind": "b"}')


def test_the_same_schema_at_several_places() -> None:
    """Prepared schemas are kept; their errors name each place."""
    good, bad = {"type": "object", "minProperties": 1}, {"type": "object", "not": {}}
    first = guide_of(QWEN3, tools=[tool("f", good, strict=True)])
    assert guide_of(QWEN3, tools=[tool("f", good, strict=True)]) == first
    for n in (0, 1, 1):
        tools = [tool(name, bad if m == n else good, strict=True) for m, name in enumerate("fg")]
        check_refused(refused(QWEN3, tools=tools), f"tools[{n}].function.parameters.not", "cannot be enforced")


def test_best_effort_enforces_the_rest() -> None:
    schema = {"type": "array", "items": {"type": "integer", "multipleOf": 5000}, "uniqueItems": True, "maxItems": 2}
    assert allows(schema, "[1,1]", best_effort=True)
    assert not allows(schema, "[1,1,1]", best_effort=True) and not allows(schema, '["a"]', best_effort=True)


def test_names_that_xgrammar_overlooks() -> None:
    """xgrammar takes two objects that differ only in a property named `title` for the same."""
    for name in ("title", "default", "description", "examples", "deprecated", "readOnly", "writeOnly"):
        one, other = ({"type": "object", "properties": {name: {"type": kind}}} for kind in ("string", "integer"))
        schema = {"type": "object", "properties": {"a": one, "b": other}}
        assert allows(schema, json.dumps({"a": {name: "x"}, "b": {name: 1}}))
        assert not allows(schema, json.dumps({"a": {name: "x"}, "b": {name: "x"}}))
        schema = {"type": "object", "properties": {"a": {"const": {name: 1}}, "b": {"const": {name: 2}}}}
        assert allows(schema, f'{{"a": {{"{name}":1}}, "b": {{"{name}":2}}}}')


def test_schemas_in_a_structural_tag() -> None:
    def guide(schema: Any) -> str:
        content = {"type": "json_schema", "json_schema": schema}
        tag = {"type": "tag", "begin": "<a>", "content": content, "end": "</a>"}
        return json.dumps({"type": "structural_tag", "format": {"type": "sequence", "elements": [tag]}})

    found = check_guide("structural_tag", guide({"type": "array", "minItems": 1}))
    assert found is not None and found.guide == guide({"type": "array", "minItems": 1, "items": True})
    with pytest.raises(RequestError) as error:
        check_guide("structural_tag", guide({"items": {"uniqueItems": True}}))
    where = "guided_decoding_guide.format.elements[0].content.json_schema.items.uniqueItems"
    check_refused(error.value, where, "cannot be enforced")
    older = {"structures": [{"begin": "<a>", "schema": {"not": {}}, "end": "</a>"}], "triggers": ["<a>"]}
    with pytest.raises(RequestError) as error:
        check_guide("structural_tag", json.dumps(older))
    check_refused(error.value, "guided_decoding_guide.structures[0].schema.not", "cannot be enforced")


def test_sizes() -> None:
    """Schemas that grow when they are prepared, or lead deep, are refused, not worked on for long."""
    wide = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    for n in range(40):
        wide = {"properties": {str(n): wide}, "anyOf": [{"required": [str(n)]}, {"minProperties": 1}]}
    chain = {str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}], "type": "object"} for n in range(500)}
    part = {"properties": {"n": {}}, "anyOf": [{"$ref": "#"}, {"type": "object"}]}
    for schema, words in (
        (wide, "too large"),
        ({"$ref": "#/$defs/0", "$defs": {**chain, "500": {}}}, "references to references"),
        (part, "part of itself"),
    ):
        with pytest.raises(RequestError) as error:
            prepare_schema(schema, "schema")
        assert words in error.value.message
    links = {str(n): {"properties": {"n": {"$ref": f"#/$defs/{n + 1}"}}} for n in range(3000)}
    assert len(prepared({"$ref": "#/$defs/0", "$defs": {**links, "3000": {}}})["$defs"]) == 3001


def test_a_keyword_is_in_one_table() -> None:
    assert not set(ENFORCED) & set(REFUSED)


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


def test_the_documentation_names_every_keyword() -> None:
    text = (Path(__file__).parents[4] / "docs" / "api.md").read_text()
    table = [line for line in text.split("## JSON schemas")[1].split("\n## ")[0].splitlines() if line.startswith("| `")]
    refused = [line for line in table if "refused" in line]
    named = {name: line for line in table for name in re.findall(r"`([\w$]+)`", line.split(" | ")[0])}
    assert named.keys() >= {*ENFORCED, *REFUSED}
    assert all(
        (named[name] in refused) is (name in REFUSED and "unevaluated" not in name)
        for name in named
        if name in ENFORCED or name in REFUSED
    )
    formats = next(line for line in table if line.startswith("| `format`"))
    assert set(re.findall(r"`([\w-]+)`", formats.split(";")[0])) == {"format", *FORMATS}
