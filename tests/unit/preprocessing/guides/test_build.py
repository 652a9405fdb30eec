# SPDX-License-Identifier: Apache-2.0
"""Guides compiled by the grammar engine that vLLM and TensorRT-LLM use, and the texts that they let through."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.answer_options import AnswerOptions
from common.chat.request import ChatRequest
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.parsers import AnswerFormat, ChatParser, ContentDelta, ToolArgumentsDelta, ToolCallStart
from preprocessing.guides.build import Guide, Reasoning, build_guide, check_guide, reasoning_state

xgrammar = pytest.importorskip("xgrammar")

PLAIN = AnswerFormat()
QWEN3 = AnswerFormat(("<think>", "</think>"), tool_parser="hermes")
GEMMA3 = AnswerFormat(tool_parser="gemma")
LLAMA3 = AnswerFormat(tool_parser="llama3_json")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
EOS = 151645

Accepts = Callable[[Guide | None, str], bool]


def tool(name: str, parameters: Any = CITY, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


TOOLS = [
    tool("get_weather"),
    tool("add", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
]
STRICT_TOOLS = [tool("get_weather", strict=True), tool("free")]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
WEATHER_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京"}}\n</tool_call>'
ADD_CALL = '<tool_call>\n{"name": "add", "arguments": {"n": 1}}\n</tool_call>'
WRONG_CALLS = [
    WEATHER_CALL.replace("city", "town"),
    WEATHER_CALL.replace("get_weather", "get_postcode"),
    ADD_CALL.replace("1", '"1"'),
    ADD_CALL.replace("</tool_call>", ""),
    "Hello",
    "",
]


def guide_of(answer_format: AnswerFormat = PLAIN, reasoning: Reasoning = "none", **fields: Any) -> Guide | None:
    chat = ChatRequest.parse(json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}))
    return build_guide(chat, answer_format, reasoning)


def refused(answer_format: AnswerFormat = PLAIN, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        guide_of(answer_format, **fields)
    return error.value


@pytest.fixture(scope="module")
def accepts(qwen3_tokenizer_dir: Path) -> Accepts:
    """Whether a guide lets a model with Qwen3's vocabulary write exactly a text."""
    tokenizer = ChatTokenizer.load(qwen3_tokenizer_dir)
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer._tokenizer, vocab_size=151936)
    compiler = xgrammar.GrammarCompiler(info)
    compile_guide = {
        "json": lambda _: compiler.compile_json_schema('{"type": "object"}'),
        "json_schema": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "ebnf_grammar": compiler.compile_grammar,
        "structural_tag": compiler.compile_structural_tag,
    }

    def check(guide: Guide | None, text: str) -> bool:
        assert guide is not None
        matcher = xgrammar.GrammarMatcher(compile_guide[guide.guide_type](guide.guide))
        # Token by token, special tokens among them, as the engine does.
        ids = tokenizer.encode(text, add_special_tokens=False)
        return all(matcher.accept_token(item) for item in [*ids, EOS])

    return check


def test_nothing_asked_nothing_guided() -> None:
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
        assert not accepts(guide_of(QWEN3, tool_choice="required", **fields), "{}")

    def test_a_model_without_tool_format(self) -> None:
        assert refused(AnswerFormat(), tools=TOOLS, tool_choice="required").param == "tools"


class TestCallsOfTheModelsAccord:
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


@pytest.mark.parametrize(
    ("answer_format", "text"),
    [
        (QWEN3, f"{WEATHER_CALL}\n{ADD_CALL}"),
        (
            GEMMA3,
            '[{"name": "get_weather", "parameters": {"city": "北京"}}, {"name": "add", "parameters": {"n": 1}}]',
        ),
    ],
)
def test_what_a_guide_asks_for_is_what_the_parser_reads(
    accepts: Accepts, answer_format: AnswerFormat, text: str
) -> None:
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

    def test_what_the_prompt_ends_with(self) -> None:
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


def test_guides_that_come_as_tensors() -> None:
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
