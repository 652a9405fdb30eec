# SPDX-License-Identifier: Apache-2.0
"""Guides compiled by the grammar engine that vLLM and TensorRT-LLM use, and the texts that they allow."""

import json
from typing import Any

import pytest

from common.answer_options import AnswerOptions
from common.chat.request import ChatRequest
from common.errors import RequestError
from families.parsers import AnswerFormat, ChatParser, ContentDelta, ToolArgumentsDelta, ToolCallStart
from preprocessing.guides.build import Guide, Reasoning, check_guide, reasoning_state
from tests.support.guides import (
    ADD_CALL,
    CITY,
    GEMMA3,
    PLAIN,
    QWEN3,
    TOOLS,
    WEATHER_CALL,
    Accepts,
    guide_of,
    refused,
)


def test_a_free_answer_has_no_guide() -> None:
    assert guide_of() is None
    assert guide_of(QWEN3, "may_open", response_format={"type": "text"}) is None
    assert guide_of(QWEN3, "may_open", tools=TOOLS) is None
    assert guide_of(QWEN3, tools=TOOLS, tool_choice="none") is None


class TestAnswers:
    def test_json_object(self, accepts: Accepts) -> None:
        assert guide_of(response_format={"type": "json_object"}) == Guide("json", None)
        guide = guide_of(QWEN3, "may_open", response_format={"type": "json_object"})
        assert accepts(guide, '{"a": [1]}')
        assert accepts(guide, '<think>\nhm {\n</think>\n\n{"a": [1]}')
        assert not accepts(guide, "[1]")

    def test_json_schema(self, accepts: Accepts) -> None:
        fields = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
        guide = guide_of(response_format=fields)
        assert guide == Guide("json_schema", json.dumps(CITY))
        assert guide_of(structured_outputs={"json": CITY}) == guide
        assert guide_of(structured_outputs={"json": json.dumps(CITY)}) == guide
        assert accepts(guide, '{"city": "北京"}')
        assert not accepts(guide, '{"town": "北京"}')

    def test_regex(self, accepts: Accepts) -> None:
        guide = guide_of(structured_outputs={"regex": "[0-9]{5}"})
        assert guide == Guide("regex", "[0-9]{5}")
        assert accepts(guide, "02138")
        assert not accepts(guide, "2138")

    def test_grammar(self, accepts: Accepts) -> None:
        ebnf = 'root ::= "yes" | "no"'
        guide = guide_of(structured_outputs={"grammar": ebnf})
        assert guide == Guide("ebnf_grammar", ebnf)
        assert accepts(guide, "no")
        assert not accepts(guide, "maybe")

    @pytest.mark.parametrize("choices", [["北京", 'say "\\n"', "a\nb", "😀"], ["only"]])
    def test_choice(self, accepts: Accepts, choices: list[str]) -> None:
        guide = guide_of(structured_outputs={"choice": choices})
        assert all(accepts(guide, choice) for choice in choices)
        assert not accepts(guide, "other")
        assert not accepts(guide, choices[0] + "x")

    @pytest.mark.parametrize(
        ("structured_outputs", "text"),
        [
            ({"json": CITY}, '{"city": "x"}'),
            ({"regex": "[0-9]+"}, "123"),
            ({"grammar": 'root ::= "yes"'}, "yes"),
            ({"choice": ["yes", "no"]}, "no"),
        ],
    )
    def test_reasoning_comes_first(self, accepts: Accepts, structured_outputs: Any, text: str) -> None:
        may_open = guide_of(QWEN3, "may_open", structured_outputs=structured_outputs)
        assert accepts(may_open, text)
        assert accepts(may_open, f"<think>\nWell, 5 < 6.\n</think>\n\n{text}")
        assert not accepts(may_open, f"Well.\n</think>\n\n{text}")
        assert not accepts(may_open, "<think>\nWell.\n</think>\n\nperhaps")
        is_open = guide_of(QWEN3, "open", structured_outputs=structured_outputs)
        assert accepts(is_open, f"Well.\n</think>\n\n{text}")
        assert not accepts(is_open, "Well.\n</think>\n\nperhaps")
        assert not accepts(is_open, text)
        closed = guide_of(QWEN3, "none", structured_outputs=structured_outputs)
        assert accepts(closed, text)
        assert not accepts(closed, f"<think>\nWell.\n</think>\n\n{text}")

    @pytest.mark.parametrize(
        ("response_format", "message"),
        [
            ({}, "response_format.type must be one of json_object, json_schema, text, not null"),
            ({"type": "xml"}, "response_format.type must be one of"),
            ({"type": "json_schema"}, "response_format.json_schema must be an object, not null"),
            ({"type": "json_schema", "json_schema": {}}, "response_format.json_schema.schema must be an object"),
            ({"type": "json_schema", "json_schema": {"schema": []}}, "must be an object, not an array"),
            ({"type": "json_schema", "json_schema": {"schema": {"type": "dict"}}}, "schema.type must be one of array"),
            ({"type": "json_schema", "json_schema": {"schema": {"properties": []}}}, "schema.properties must be an ob"),
            ({"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}}, "strict must be a boolean"),
            ({"type": "json_schema", "json_schema": {"schema": {}, "name": 1}}, "name must be a string"),
        ],
    )
    def test_odd_response_formats(self, response_format: Any, message: str) -> None:
        error = refused(response_format=response_format)
        assert message in error.message
        assert error.param == "response_format"

    @pytest.mark.parametrize(
        ("structured_outputs", "message"),
        [
            ({}, "must have exactly one of json, regex, choice, grammar"),
            ({"regex": "a", "choice": ["a"]}, "must have exactly one of"),
            ({"xml": "a"}, "must be one of choice, grammar, json, regex, not 'xml'"),
            ({"choice": []}, "structured_outputs.choice must not be empty"),
            ({"choice": "a"}, "structured_outputs.choice must be an array"),
            ({"choice": ["a", ""]}, "structured_outputs.choice[1] must not be empty"),
            ({"choice": [1]}, "structured_outputs.choice[0] must be a string"),
            ({"regex": ""}, "structured_outputs.regex must not be empty"),
            ({"regex": "a\0"}, "structured_outputs.regex must not hold a NUL"),
            ({"grammar": 5}, "structured_outputs.grammar must be a string"),
            ({"json": "{"}, "structured_outputs.json is not valid JSON"),
            ({"json": True}, "structured_outputs.json must be an object"),
        ],
    )
    def test_odd_structured_outputs(self, structured_outputs: Any, message: str) -> None:
        error = refused(structured_outputs=structured_outputs)
        assert message in error.message
        assert error.param == "structured_outputs"

    def test_one_source_of_guides_at_a_time(self) -> None:
        fields = {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}
        assert "cannot be combined" in refused(**fields).message
        assert guide_of(response_format={"type": "text"}, structured_outputs={"regex": "a"}) == Guide("regex", "a")


@pytest.mark.parametrize(
    ("answer_format", "text"),
    [
        (QWEN3, f"{WEATHER_CALL}\n{ADD_CALL}"),
        (PLAIN, f"{WEATHER_CALL}\n{ADD_CALL}"),
        (
            GEMMA3,
            '[{"name": "get_weather", "parameters": {"city": "北京"}}, {"name": "add", "parameters": {"n": 1}}]',
        ),
    ],
)
def test_the_parser_reads_what_a_guide_allows(accepts: Accepts, answer_format: AnswerFormat, text: str) -> None:
    assert accepts(guide_of(answer_format, tools=TOOLS, tool_choice="required"), text)
    parser = ChatParser(answer_format, AnswerOptions(chat=True, tools=True, tool_choice="required"))
    events = [*parser.feed(text), *parser.flush()]
    assert [event.name for event in events if isinstance(event, ToolCallStart)] == ["get_weather", "add"]
    arguments = "".join(event.text for event in events if isinstance(event, ToolArgumentsDelta))
    assert arguments == '{"city": "北京"}{"n": 1}'
    assert not any(isinstance(event, ContentDelta) for event in events)


class TestReasoningState:
    def state(self, prompt: str, *, thinking: bool = True, answer_format: AnswerFormat = QWEN3) -> Reasoning:
        chat = ChatRequest(messages=[{"role": "user", "content": "<think>"}])
        return reasoning_state(chat, answer_format, prompt, thinking)

    def test_the_end_of_the_prompt(self) -> None:
        assert self.state("<|im_start|>assistant\n") == "may_open"
        assert self.state("<|im_start|>assistant\n", thinking=False) == "none"
        assert self.state("<|im_start|>assistant\n<think>\n") == "open"
        assert self.state("<|im_start|>assistant\n<think>\n\n</think>\n\n") == "none"
        assert self.state("<start_of_turn>model\n", answer_format=GEMMA3) == "none"

    @pytest.mark.parametrize(
        ("written", "state"), [("<think>\nhm", "open"), ("<think>\nhm\n</think>\n\n{", "none"), ("So", "none")]
    )
    def test_a_continued_message(self, written: str, state: Reasoning) -> None:
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": written}]
        chat = ChatRequest(messages=messages, add_generation_prompt=False, continue_final_message=True)
        assert reasoning_state(chat, QWEN3, f"...{written}", True) == state


def test_guides_given_as_tensors() -> None:
    assert check_guide(None, None) is None
    assert check_guide("json", None) == Guide("json", None)
    assert check_guide("regex", "a+") == Guide("regex", "a+")
    with pytest.raises(RequestError, match="must be one of ebnf_grammar, json, json_schema, regex, structural_tag"):
        check_guide("xml", "a")
    with pytest.raises(RequestError, match="must not be empty for type regex"):
        check_guide("regex", "")
    with pytest.raises(RequestError, match="needs guided_decoding_guide_type") as error:
        check_guide(None, "a")
    assert error.value.param == "guided_decoding_guide"
