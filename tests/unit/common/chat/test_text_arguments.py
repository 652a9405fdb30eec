# SPDX-License-Identifier: Apache-2.0
"""Which arguments of a request's functions are text by their schemas."""

import json
from typing import Any

import pytest

from common.chat.text_arguments import read_text_arguments, text_arguments


def tool(name: str = "f", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


def is_text(schema: Any, **beside: Any) -> bool:
    found = json.loads(text_arguments([tool(properties={"a": schema}, **beside)]))
    assert found in ({"f": ["a"]}, {"f": []})
    return bool(found["f"])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "string", "format": "date", "nullable": True},
        {"type": ["string", "null"]},
        {"enum": ["a", "b"]},
        {"enum": ["a", None]},
        {"const": "a"},
        {"type": "string", "anyOf": [{"pattern": "a"}, {"minLength": 3}]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"oneOf": [{"const": "a"}, {"enum": ["b"]}]},
        {"anyOf": [{"type": "string"}, {"anyOf": [{"$ref": "#/$defs/Text"}, {"type": "null"}]}]},
        {"$ref": "#/$defs/Text"},
        {"$ref": "#/$defs/a~1b~0c"},
        {"$ref": "#/$defs/Chain"},
    ],
)
def test_text(schema: Any) -> None:
    definitions = {"Text": {"type": "string"}, "a/b~c": {"enum": ["x"]}, "Chain": {"$ref": "#/$defs/Text"}}
    assert is_text(schema, **{"$defs": definitions})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        None,
        True,
        {"type": "integer"},
        {"type": "null"},
        {"type": ["string", "integer"]},
        {"type": [3]},
        {"enum": ["a", 1]},
        {"enum": []},
        {"enum": [None]},
        {"const": None},
        {"const": {"a": "b"}},
        {"anyOf": [{"type": "string"}, {"type": "number"}]},
        {"anyOf": [{"type": "string"}, {"description": "anything"}]},
        {"anyOf": []},
        {"$ref": "#/$defs/Missing"},
        {"$ref": "#/$defs/Itself"},
        {"$ref": "other.json#/Text"},
        {"$ref": 3},
    ],
)
def test_anything_else(schema: Any) -> None:
    assert not is_text(schema, **{"$defs": {"Itself": {"$ref": "#/$defs/Itself"}}})


def test_several_functions() -> None:
    tools = [tool("f", properties={"a": {"type": "string"}, "b": {"type": "number"}, "ü": {"const": ""}}), tool("g")]
    assert text_arguments(tools) == '{"f":["a","ü"],"g":[]}'
    assert read_text_arguments(text_arguments(tools)) == {"f": {"a", "ü"}, "g": set()}
    assert text_arguments([]) == "{}"


def test_what_is_no_tool_is_left_out() -> None:
    """Its refusal names the field; that is not this function's task."""
    wrong = [
        3,
        None,
        {},
        {"function": None},
        {"function": {"name": 3}},
        {"function": {"parameters": {}}},
        tool("f", properties=[]),
        {"function": {"name": "g", "parameters": [1]}},
        {"function": {"name": "h"}},
    ]
    assert json.loads(text_arguments(wrong)) == {"f": [], "g": [], "h": []}


def test_alternatives_that_refer_to_each_other_are_read_once() -> None:
    """One by one, these would be 200 to the power of 7."""
    definitions = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 200} for n in range(7)}
    definitions |= {f"c{n}": {"anyOf": [{"$ref": f"#/$defs/c{(n + 1) % 7}"} for _ in range(200)]} for n in range(7)}
    assert not is_text({"$ref": "#/$defs/d0"}, **{"$defs": definitions})
    assert not is_text({"$ref": "#/$defs/c0"}, **{"$defs": definitions})
