# SPDX-License-Identifier: Apache-2.0
"""The prompts of DeepSeek V3.2 and V4, whose format their repositories describe in Python."""

from typing import Any

import pytest

from families.detection import find_styler
from families.parsers import AnswerFormat
from families.stylers.base import Styler
from tests.support.chats import call, chat, checkpoint, tiny

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
V32, V4 = find_styler(checkpoint("deepseek_v32")), find_styler(checkpoint("deepseek_v4"))
PREVIEW = find_styler(checkpoint("deepseek_v4"), "deepseek_v4_preview")

ON, OFF = {"thinking": True}, {"thinking": False}
# On, and without a text about the effort.
LOW = {"thinking": True, "reasoning_effort": "low"}

CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "时间", "parameters": {"type": "object", "properties": {}}},
}
CLOCK_JSON = '{"name": "clock", "description": "时间", "parameters": {"type": "object", "properties": {}}}'

V32_TOOLS = """## Tools

You have access to a set of tools you can use to answer the user's question.
You can invoke functions by writing a "<｜DSML｜function_calls>" block like the following as part of your reply to the user:
<｜DSML｜function_calls>
<｜DSML｜invoke name="$FUNCTION_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$FUNCTION_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜function_calls>

String and scalar parameters should be specified as is without any escaping or quotes, while lists and objects should use JSON format. The "string" attribute should be set to "true" for string type parameters and "false" for other types (numbers, booleans, arrays, objects).

If the thinking_mode is enabled, then after function results you should strongly consider outputting a thinking block. Here is an example:

<｜DSML｜function_calls>
...
</｜DSML｜function_calls>

<function_results>
...
</function_results>

<think>...thinking about results</think>

Here are the functions available in JSONSchema format:
<functions>
{tools}
</functions>
"""

V4_TOOLS = """## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<｜DSML｜tool_calls>" block like the following:

<｜DSML｜tool_calls>
<｜DSML｜invoke name="$TOOL_NAME">
<｜DSML｜parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</｜DSML｜parameter>
...
</｜DSML｜invoke>
<｜DSML｜invoke name="$TOOL_NAME2">
...
</｜DSML｜invoke>
</｜DSML｜tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by <think>), you MUST output your complete reasoning inside <think>...</think> BEFORE any tool calls or final response.

Otherwise, output directly after </think> with tool calls or final response.

### Available Tool Schemas

{tools}

You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def answer(text: str | None, reasoning: str | None = None, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "reasoning_content": reasoning, "tool_calls": list(calls) or None}


def result(text: str, call_id: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": call_id}


def render(styler: Styler, messages: list[dict[str, Any]], **fields: Any) -> str:
    prompt = styler.render(tiny(), chat(messages, **fields))
    assert prompt.startswith(BOS)
    return prompt.removeprefix(BOS)


HISTORY = [system("S"), user("1+1?"), answer("2", "easy"), user("2+2?")]


@pytest.mark.parametrize("styler", [V32, V4])
class TestBoth:
    def test_one_question(self, styler: Styler) -> None:
        on, off = (render(styler, [user("你好")], chat_template_kwargs=kwargs) for kwargs in (LOW, OFF))
        assert on == "<｜User｜>你好<｜Assistant｜><think>"
        assert off == "<｜User｜>你好<｜Assistant｜></think>"

    def test_reasoning_of_earlier_turns_is_dropped(self, styler: Styler) -> None:
        assert render(styler, HISTORY, chat_template_kwargs=LOW) == (
            f"S<｜User｜>1+1?<｜Assistant｜></think>2{EOS}<｜User｜>2+2?<｜Assistant｜><think>"
        )
        assert render(styler, HISTORY, chat_template_kwargs=OFF) == (
            f"S<｜User｜>1+1?<｜Assistant｜></think>2{EOS}<｜User｜>2+2?<｜Assistant｜></think>"
        )

    @pytest.mark.parametrize(
        ("last", "expected"),
        [
            (answer("4 is", "hm"), "<think>hm</think>4 is"),
            (answer("4 is"), "<think></think>4 is"),
            # Only the reasoning has begun.
            (answer(None, "hm"), "<think>hm"),
        ],
    )
    def test_continuing_the_last_message(self, styler: Styler, last: dict[str, Any], expected: str) -> None:
        prompt = render(styler, [user("2+2?"), last], continue_final_message=True, chat_template_kwargs=LOW)
        assert prompt == f"<｜User｜>2+2?<｜Assistant｜>{expected}"
        off = render(styler, [user("2+2?"), last], continue_final_message=True, chat_template_kwargs=OFF)
        assert off == f"<｜User｜>2+2?<｜Assistant｜></think>{last['content'] or ''}"

    def test_without_a_generation_prompt(self, styler: Styler) -> None:
        assert render(styler, [user("a")], add_generation_prompt=False, chat_template_kwargs=OFF) == "<｜User｜>a"
        ended = render(styler, [user("a"), answer("b")], add_generation_prompt=False, chat_template_kwargs=OFF)
        assert ended == f"<｜User｜>a<｜Assistant｜></think>b{EOS}"

    def test_an_answer_after_an_answer(self, styler: Styler) -> None:
        prompt = render(styler, [user("a"), answer("b")], chat_template_kwargs=OFF)
        assert prompt == f"<｜User｜>a<｜Assistant｜></think>b{EOS}<｜Assistant｜></think>"

    def test_a_system_message_is_read_before_the_answer(self, styler: Styler) -> None:
        prompt = render(styler, [user("a"), system("Be brief.")], chat_template_kwargs=LOW)
        assert prompt == "<｜User｜>aBe brief.<｜Assistant｜><think>"

    def test_a_template_comes_first(self, styler: Styler) -> None:
        tokenizer = tiny(template="{{ messages[0].content }}")
        assert styler.render(tokenizer, chat([user("a")])) == "a"
        assert styler.reasoning(tokenizer) is None
        assert not styler.renders_tools(tokenizer)
        assert styler.render(tiny(), chat([user("b")], chat_template="{{ messages[0].content }}")) == "b"

    def test_what_switches_thinking(self, styler: Styler) -> None:
        def thinks(**kwargs: Any) -> bool:
            return render(styler, [user("a")], chat_template_kwargs=kwargs).endswith("<think>")

        assert thinks() is (styler is V4)
        assert thinks(thinking=True) and thinks(enable_thinking=True) and thinks(reasoning_effort="max")
        assert not (thinks(thinking=False) or thinks(enable_thinking=False) or thinks(reasoning_effort="none"))

    def test_stop_ids(self, styler: Styler) -> None:
        tokenizer = tiny(EOS)
        assert styler.stop_ids(tokenizer) == (tokenizer.token_id(EOS),)


def test_answers() -> None:
    assert V32.answer_format(tiny()) == AnswerFormat("think", True, False, "deepseek_v32")
    assert V4.answer_format(tiny()) == AnswerFormat("think", True, True, "deepseek_v4")
    off = find_styler(checkpoint("deepseek_v4"), template_defaults={"enable_thinking": False})
    assert off.answer_format(tiny()).thinking_default is False
    on = find_styler(checkpoint("deepseek_v32"), template_defaults={"enable_thinking": True})
    assert on.answer_format(tiny()).thinking_default is True


CALLS = (call("c1", "clock", {}), call("c2", "pick", {"名": "北京\n", "n": 2, "deep": {"a": [True, None, "ü"]}}))
CALLS_TEXT = (
    '<｜DSML｜invoke name="clock">\n\n</｜DSML｜invoke>\n'
    '<｜DSML｜invoke name="pick">\n'
    '<｜DSML｜parameter name="名" string="true">北京\n</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="n" string="false">2</｜DSML｜parameter>\n'
    '<｜DSML｜parameter name="deep" string="false">{"a": [true, null, "ü"]}</｜DSML｜parameter>\n'
    "</｜DSML｜invoke>\n"
)
ROUND = [user("What?"), answer("Let me see.", "look", *CALLS), result("noon", "c2"), result("1", "c1")]
NEXT = [answer("Noon.", "so"), user("Thanks")]


class TestV32Tools:
    tools = V32_TOOLS.replace("{tools}", CLOCK_JSON)
    calls = f"Let me see.\n\n<｜DSML｜function_calls>\n{CALLS_TEXT}</｜DSML｜function_calls>{EOS}"
    results = "\n\n<function_results>\n<result>noon</result>\n<result>1</result>\n</function_results>"

    def test_described_after_the_first_system_message(self) -> None:
        off = "<｜Assistant｜></think>"
        assert render(V32, [user("a")], tools=[CLOCK]) == f"\n\n{self.tools}<｜User｜>a{off}"
        both = render(V32, [system("S"), system("T"), user("a")], tools=[CLOCK])
        assert both == f"S\n\n{self.tools}T<｜User｜>a{off}"

    def test_several_tools(self) -> None:
        second = {"type": "function", "function": {"name": "b"}}
        prompt = render(V32, [user("a")], tools=[CLOCK, second])
        assert f'<functions>\n{CLOCK_JSON}\n{{"name": "b"}}\n</functions>\n<｜User｜>' in prompt

    def test_results_belong_to_the_answer(self) -> None:
        on = render(V32, ROUND, chat_template_kwargs=ON)
        assert on == f"<｜User｜>What?<｜Assistant｜><think>look</think>{self.calls}{self.results}\n\n<think>"
        off = render(V32, ROUND, chat_template_kwargs=OFF)
        assert off == f"<｜User｜>What?<｜Assistant｜></think>{self.calls}{self.results}\n\n</think>"
        assert render(V32, ROUND, add_generation_prompt=False).endswith("\n</function_results>")

    def test_a_new_question_drops_the_reasoning(self) -> None:
        assert render(V32, [*ROUND, *NEXT], chat_template_kwargs=ON) == (
            f"<｜User｜>What?<｜Assistant｜></think>{self.calls}{self.results}\n\n</think>Noon.{EOS}"
            "<｜User｜>Thanks<｜Assistant｜><think>"
        )

    def test_fewer_results_than_calls(self) -> None:
        prompt = render(V32, ROUND[:3])
        assert prompt.endswith("\n\n<function_results>\n<result>noon</result>\n</function_results>\n\n</think>")


class TestV4Tools:
    tools = V4_TOOLS.replace("{tools}", CLOCK_JSON)
    calls = f"Let me see.\n\n<｜DSML｜tool_calls>\n{CALLS_TEXT}</｜DSML｜tool_calls>{EOS}"
    # In the order of the calls.
    results = "<｜User｜><tool_result>1</tool_result>\n\n<tool_result>noon</tool_result>"

    def test_described_after_the_first_system_message(self) -> None:
        prompt = render(V4, [user("a")], tools=[CLOCK], chat_template_kwargs=LOW)
        assert prompt == f"\n\n{self.tools}<｜User｜>a<｜Assistant｜><think>"
        late = render(V4, [user("a"), system("S"), user("b")], tools=[CLOCK], chat_template_kwargs=LOW)
        assert late == f"<｜User｜>aS\n\n{self.tools}<｜User｜>b<｜Assistant｜><think>"

    def test_results_are_a_user_turn(self) -> None:
        prompt = render(V4, ROUND, chat_template_kwargs=OFF)
        assert prompt == f"<｜User｜>What?<｜Assistant｜></think>{self.calls}{self.results}<｜Assistant｜></think>"
        more = render(V4, [*ROUND, user("Well?")], chat_template_kwargs=OFF)
        assert more.endswith(f"{self.results}\n\nWell?<｜Assistant｜></think>")

    def test_results_are_sorted_around_text(self) -> None:
        messages = [*ROUND[:3], user("and"), ROUND[3]]
        assert render(V4, messages, chat_template_kwargs=OFF).endswith(
            "<｜User｜><tool_result>1</tool_result>\n\nand\n\n<tool_result>noon</tool_result><｜Assistant｜></think>"
        )

    def test_tools_keep_the_reasoning_of_all_turns(self) -> None:
        on = "<｜User｜>What?<｜Assistant｜><think>look</think>"
        with_tools = render(V4, [*ROUND, *NEXT], tools=[CLOCK], chat_template_kwargs=LOW)
        assert with_tools == (
            f"\n\n{self.tools}{on}{self.calls}{self.results}<｜Assistant｜><think>so</think>Noon.{EOS}"
            "<｜User｜>Thanks<｜Assistant｜><think>"
        )
        without = render(V4, [*ROUND, *NEXT], chat_template_kwargs=LOW)
        assert "look" not in without and "<think>so" not in without
        kept = render(V4, [*ROUND, *NEXT], chat_template_kwargs={**LOW, "drop_thinking": False})
        assert kept == with_tools.removeprefix(f"\n\n{self.tools}")


class TestV4Efforts:
    def prefix(self, styler: Styler, **kwargs: Any) -> str:
        prompt = render(styler, [system("S"), user("a")], chat_template_kwargs=kwargs)
        return prompt.removesuffix("<think>").removesuffix("</think>").removesuffix("S<｜User｜>a<｜Assistant｜>")

    def test_texts(self) -> None:
        high = self.prefix(V4)
        assert high.startswith("Reasoning Effort: Absolute maximum with no shortcuts permitted.\nYou MUST be very")
        assert high.endswith("to ensure absolutely no assumption is left unchecked.\n\n")
        most = self.prefix(V4, reasoning_effort="max")
        assert most.startswith(
            "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\nYou MUST"
        )
        assert most.endswith("no assumption remains unchecked and no error remains undiscovered.\n\n")
        assert (high.count("\n"), most.count("\n")) == (4, 4)

    def test_by_value(self) -> None:
        high, most = self.prefix(V4), self.prefix(V4, reasoning_effort="max")
        for value in ("high", "xhigh", 3):
            assert self.prefix(V4, reasoning_effort=value) == high
        for value in ("minimal", "low", "medium", "none"):
            assert self.prefix(V4, reasoning_effort=value) == ""
        assert self.prefix(PREVIEW) == self.prefix(PREVIEW, reasoning_effort="low") == ""
        assert self.prefix(PREVIEW, reasoning_effort="max") == high != most
        assert self.prefix(V4, thinking=False, reasoning_effort="max") == ""

    def test_none_of_v32(self) -> None:
        assert self.prefix(V32, reasoning_effort="max") == ""
