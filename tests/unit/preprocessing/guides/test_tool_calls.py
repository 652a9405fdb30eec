# SPDX-License-Identifier: Apache-2.0
"""Tool calls that guides allow, compiled by the grammar engine that vLLM and TensorRT-LLM use."""

from typing import Any

import pytest

from common.answer_options import AnswerOptions
from common.errors import RequestError
from families.parsers import ChatParser
from tests.support.answers import Answer, parse
from tests.support.guides import (
    ADD_CALL,
    CITY,
    GEMMA3,
    LLAMA3,
    NAMED,
    PLAIN,
    QWEN3,
    STRICT_TOOLS,
    TOOLS,
    WEATHER_CALL,
    WRONG_CALLS,
    Accepts,
    guide_of,
    refused,
    tool,
)


class TestForcedCalls:
    def test_required(self, accepts: Accepts) -> None:
        guide = guide_of(QWEN3, tools=TOOLS, tool_choice="required")
        assert accepts(guide, WEATHER_CALL)
        assert accepts(guide, f"{ADD_CALL}\n{WEATHER_CALL}\n{ADD_CALL}")
        assert not any(accepts(guide, text) for text in WRONG_CALLS)

    def test_at_most_one_call(self, accepts: Accepts) -> None:
        guide = guide_of(QWEN3, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
        assert accepts(guide, ADD_CALL)
        assert not accepts(guide, f"{ADD_CALL}\n{WEATHER_CALL}")

    def test_named(self, accepts: Accepts) -> None:
        guide = guide_of(QWEN3, tools=TOOLS, tool_choice=NAMED)
        assert accepts(guide, WEATHER_CALL)
        assert not accepts(guide, f"{WEATHER_CALL}\n{WEATHER_CALL}")
        assert not any(accepts(guide, text) for text in [*WRONG_CALLS, ADD_CALL])

    @pytest.mark.parametrize("tool_choice", ["required", NAMED])
    def test_reasoning_comes_first(self, accepts: Accepts, tool_choice: Any) -> None:
        guide = guide_of(QWEN3, "may_open", tools=TOOLS, tool_choice=tool_choice)
        assert accepts(guide, WEATHER_CALL)
        assert accepts(guide, f"<think>\nUse <tool_call> now.\n</think>\n\n{WEATHER_CALL}")
        assert not accepts(guide, "<think>\nNo need.\n</think>\n\nHello")
        guide = guide_of(QWEN3, "open", tools=TOOLS, tool_choice=tool_choice)
        assert accepts(guide, f"Let me see.\n</think>\n\n{WEATHER_CALL}")
        assert not accepts(guide, WEATHER_CALL)

    def test_a_tool_without_parameters(self, accepts: Accepts) -> None:
        tools = [{"type": "function", "function": {"name": "now"}}]
        guide = guide_of(QWEN3, tools=tools, tool_choice="required")
        assert accepts(guide, '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>')
        assert not accepts(guide, '<tool_call>\n{"name": "now", "arguments": {"a": 1}}\n</tool_call>')

    def test_gemma_writes_one_object_or_an_array(self, accepts: Accepts) -> None:
        weather, add = '{"name": "get_weather", "parameters": {"city": "x"}}', '{"name": "add", "parameters": {"n": 1}}'
        guide = guide_of(GEMMA3, tools=TOOLS, tool_choice="required")
        assert all(accepts(guide, text) for text in (weather, f"[{weather}]", f"[{add}, {weather}]"))
        assert not any(accepts(guide, text) for text in (f"{add}, {weather}", "[]", "Hello", add.replace("1", '"1"')))
        guide = guide_of(GEMMA3, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
        assert accepts(guide, add)
        assert not accepts(guide, f"[{add}, {weather}]")
        assert accepts(guide_of(GEMMA3, tools=TOOLS, tool_choice=NAMED), weather)

    def test_llama_makes_one_call(self, accepts: Accepts) -> None:
        guide = guide_of(LLAMA3, tools=TOOLS, tool_choice="required")
        assert accepts(guide, '{"name": "add", "parameters": {"n": 1}}')
        assert not accepts(guide, '{"name": "add", "parameters": {"n": 1}}{"name": "add", "parameters": {"n": 1}}')

    def test_forced_calls_leave_no_room_for_another_form(self, accepts: Accepts) -> None:
        fields = {"tools": TOOLS, "response_format": {"type": "json_object"}}
        for choice in ("required", NAMED):
            guide = guide_of(QWEN3, tool_choice=choice, **fields)
            assert accepts(guide, WEATHER_CALL)
            assert not accepts(guide, "{}")

    def test_a_model_without_tool_format(self, accepts: Accepts) -> None:
        guide = guide_of(PLAIN, tools=TOOLS, tool_choice="required")
        assert accepts(guide, f"{ADD_CALL}\n{WEATHER_CALL}")
        assert not any(accepts(guide, text) for text in WRONG_CALLS)
        assert accepts(guide_of(PLAIN, tools=TOOLS, tool_choice=NAMED), WEATHER_CALL)
        for fields in ({}, {"tool_choice": "auto"}, {"response_format": {"type": "json_object"}}):
            assert refused(PLAIN, tools=TOOLS, **fields).param == "tools"


NODE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "next": {"$ref": "#"}, "place": {"$ref": "#/$defs/Place"}},
    "required": ["name", "place"],
    "additionalProperties": False,
    "$defs": {"Place": {"enum": ["Boston", "Paris"]}},
}


class TestForcedCallsWithoutStructuralTags:
    def test_json_only(self, accepts: Accepts) -> None:
        weather, add = ('{"name": "get_weather", "arguments": {"city": "x"}}', '{"name": "add", "arguments": {"n": 1}}')
        for answer_format in (PLAIN, QWEN3, GEMMA3, LLAMA3):
            several = answer_format != LLAMA3
            guide = guide_of(answer_format, structural_tags=False, tools=TOOLS, tool_choice="required")
            assert guide is not None and guide.guide_type == "json_schema"
            assert accepts(guide, f"[{add}, {weather}]") is several
            assert accepts(guide, weather) is not several
            assert not any(accepts(guide, text) for text in ("[]", "{}", "[{}]", WEATHER_CALL, add.replace("1", '"1"')))

    def test_one_call(self, accepts: Accepts) -> None:
        for fields in ({"tool_choice": NAMED}, {"tool_choice": "required", "parallel_tool_calls": False}):
            guide = guide_of(QWEN3, structural_tags=False, tools=TOOLS, **fields)
            assert accepts(guide, '{"name": "get_weather", "arguments": {"city": "x"}}')
            assert accepts(guide, '{"name": "add", "arguments": {"n": 1}}') is ("parallel_tool_calls" in fields)

    def test_references_within_a_schema(self, accepts: Accepts) -> None:
        guide = guide_of(PLAIN, structural_tags=False, tools=[*TOOLS, tool("f", NODE)], tool_choice="required")
        node = '{"name": "a", "next": {"name": "b", "place": "Paris"}, "place": "Boston"}'
        assert accepts(guide, f'[{{"name": "f", "arguments": {node}}}]')
        assert not accepts(guide, f'[{{"name": "f", "arguments": {node.replace("Paris", "Rome")}}}]')

    def test_values_are_no_references(self, accepts: Accepts) -> None:
        schema = {"type": "object", "properties": {"a": {"enum": [{"$ref": "#/q"}]}}, "required": ["a"]}
        guide = guide_of(PLAIN, structural_tags=False, tools=[tool("f", schema)], tool_choice="required")
        assert accepts(guide, '[{"name": "f", "arguments": {"a": {"$ref":"#/q"}}}]')

    def test_schemas_of_tools_that_are_not_called_do_not_matter(self) -> None:
        broken = tool("g", {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}})
        guide_of(PLAIN, tools=[*TOOLS, broken], tool_choice=NAMED)
        with pytest.raises(RequestError):
            guide_of(PLAIN, tools=[*TOOLS, broken], tool_choice="required")

    def test_after_reasoning_tags_are_needed(self) -> None:
        fields = {"tools": TOOLS, "tool_choice": "required"}
        assert guide_of(QWEN3, "open", structural_tags=False, **fields) == guide_of(QWEN3, "open", **fields)

    def test_the_parsers_read_it(self, accepts: Accepts) -> None:
        text = '[{"name": "get_weather", "arguments": {"city": "北京"}}, {"name": "add", "arguments": {"n": 1}}]'
        options = AnswerOptions(chat=True, tools=True, tool_choice="required")
        for answer_format in (PLAIN, QWEN3, GEMMA3, LLAMA3):
            answer = parse(ChatParser(answer_format, options), text)
            assert answer == Answer("", "", [["get_weather", '{"city": "北京"}'], ["add", '{"n": 1}']])


class TestOptionalCalls:
    def test_strict_tools(self, accepts: Accepts) -> None:
        guide = guide_of(QWEN3, tools=STRICT_TOOLS)
        assert accepts(guide, "Just text, even with <b> and { braces.")
        assert accepts(guide, WEATHER_CALL)
        assert accepts(guide, f"Let me look.\n{WEATHER_CALL}\n{WEATHER_CALL}")
        assert accepts(guide, '<tool_call>\n{"name": "free", "arguments": {"anything": 1}}\n</tool_call>')
        assert not accepts(guide, WEATHER_CALL.replace("city", "town"))
        assert not accepts(guide, ADD_CALL)

    def test_strict_tools_after_reasoning(self, accepts: Accepts) -> None:
        guide = guide_of(QWEN3, "may_open", tools=STRICT_TOOLS)
        assert accepts(guide, f"<think>\nI could write <tool_call> here.\n</think>\n\n{WEATHER_CALL}")
        assert accepts(guide, "<think>\nNo need.\n</think>\n\nHello")
        assert accepts(guide, "Hello")
        assert not accepts(guide, f"<think>\nx\n</think>\n\n{ADD_CALL}")
        guide = guide_of(QWEN3, "open", tools=STRICT_TOOLS)
        assert accepts(guide, f"I could write <tool_call> here.\n</think>\n\n{WEATHER_CALL}")
        assert not accepts(guide, f"x\n</think>\n\n{ADD_CALL}")

    def test_at_most_one_call(self, accepts: Accepts) -> None:
        guide = guide_of(QWEN3, tools=TOOLS, parallel_tool_calls=False)
        assert accepts(guide, "Hello")
        assert accepts(guide, f"Let me look.\n{WEATHER_CALL}")
        assert not accepts(guide, f"{WEATHER_CALL}\n{ADD_CALL}")

    def test_strict_tools_of_a_family_without_markup(self, accepts: Accepts) -> None:
        guide = guide_of(GEMMA3, tools=STRICT_TOOLS)
        assert accepts(guide, '{"name": "Bob", "age": 5}')
        assert accepts(guide, '{"name": "get_weather", "parameters": {"city": "x"}}')
        assert not accepts(guide, '{"name": "get_weather", "parameters": {"town": "x"}}')
        assert guide_of(GEMMA3, tools=TOOLS) is None

    def test_a_constrained_answer_or_calls(self, accepts: Accepts) -> None:
        fields = {"tools": TOOLS, "response_format": {"type": "json_schema", "json_schema": {"schema": CITY}}}
        guide = guide_of(QWEN3, "may_open", **fields)
        assert accepts(guide, '{"city": "x"}')
        assert accepts(guide, f"{WEATHER_CALL}\n{ADD_CALL}")
        assert accepts(guide, '<think>\nx\n</think>\n\n{"city": "x"}')
        assert not accepts(guide, "Hello")
        assert not accepts(guide, '{"city": "x"}' + WEATHER_CALL)
