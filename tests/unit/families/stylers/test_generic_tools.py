# SPDX-License-Identifier: Apache-2.0
"""Tools of families whose chat template knows none."""

import json
import re
from typing import Any

import pytest

from common.chat.request import ChatRequest
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import FAMILIES, find_styler
from families.parsers import GENERIC, TOOL_FORMATS, AnswerFormat
from families.stylers.base import Styler
from tests.support.answers import parse, tool_parser
from tests.support.chats import HELLO, POSTCODE, WEATHER, call, chat, checkpoint, dialogue, tiny, with_template

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
# SmolLM2's way: a system prompt of the template's own unless there is a message.
OWN_SYSTEM = "{% if messages[0].role != 'system' %}<system>Own\n{% endif %}" + TURNS
# Gemma 2's.
NO_SYSTEM = """\
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('must alternate') }}{% endif %}
    {{- '<' + m.role + '>' + m.content | trim + '\n' }}
{%- endfor %}"""
SYSTEM_LEFT_OUT = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
OWN_CALLS = (
    "{% for m in messages %}{% if m.tool_calls %}<own call>{% endif %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
)
TEMPLATES = {
    "turns": TURNS,
    "own system": OWN_SYSTEM,
    "no system": NO_SYSTEM,
    "left out": SYSTEM_LEFT_OUT,
    "own calls": OWN_CALLS,
}
SYSTEM = {"role": "system", "content": "Be brief."}
TAGS = re.compile(r"</?tool(?:s|_call|_response)>")


def default(*, describe_tools: bool = True) -> Styler:
    return find_styler(checkpoint("mistral"), describe_tools=describe_tools)


def render(template: str, request: ChatRequest, **options: bool) -> str:
    return default(**options).render(tiny(template=template), request)


class TestDescription:
    def test_in_a_system_message_of_its_own(self) -> None:
        prompt = render(OWN_SYSTEM, chat(HELLO, tools=[WEATHER, POSTCODE]))
        assert prompt.startswith("<system># Tools\n\nYou may call one or more functions")
        assert prompt.endswith('"arguments": <args-json-object>}\n</tool_call>\n<user>你好，你是谁？\n')
        listed = prompt.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()
        assert [json.loads(line) for line in listed] == [WEATHER, POSTCODE]

    def test_after_the_request_s_system_message(self) -> None:
        prompt = render(TURNS, chat([SYSTEM, *HELLO], tools=[WEATHER]))
        assert prompt.startswith("<system>Be brief.\n\n# Tools\n\n")
        assert prompt.count("<system>") == 1

    def test_after_the_system_prompt_of_the_family(self) -> None:
        styler = find_styler(checkpoint("internvl_chat"), template_defaults={"default_system": "Look closely."})
        prompt = styler.render(tiny("<|im_end|>"), chat(HELLO, tools=[WEATHER]))
        assert prompt.startswith("<|im_start|>system\nLook closely.\n\n# Tools\n\n")

    @pytest.mark.parametrize("template", [NO_SYSTEM, SYSTEM_LEFT_OUT])
    def test_in_the_first_user_turn_where_there_is_no_system_turn(self, template: str) -> None:
        prompt = render(template, chat(HELLO, tools=[WEATHER]))
        assert prompt.startswith("<user># Tools\n\n")
        assert prompt.endswith("</tool_call>\n\n你好，你是谁？\n")
        first = render(SYSTEM_LEFT_OUT, chat([{"role": "assistant", "content": "Hi"}, *HELLO], tools=[WEATHER]))
        assert first.startswith("<user># Tools\n\n")

    def test_a_refused_system_message_is_still_refused(self) -> None:
        with pytest.raises(RequestError, match="System role not supported"):
            render(NO_SYSTEM, chat([SYSTEM, *HELLO], tools=[WEATHER]))

    def test_of_one_call_at_most(self) -> None:
        prompt = render(TURNS, chat(HELLO, tools=[WEATHER], parallel_tool_calls=False))
        assert "</tool_call>\n\nCall at most one function in an answer.\n<user>" in prompt

    def test_only_of_the_tools_that_may_be_called(self) -> None:
        hidden = render(TURNS, chat(HELLO, tools=[WEATHER], tool_choice="none"))
        assert hidden == render(TURNS, chat(HELLO)) == "<user>你好，你是谁？\n"


class TestHistory:
    def test_calls_and_results(self) -> None:
        expected = (
            "<user>What's the postcode of Boston and what's the weather like in Boston today?\n"
            '<assistant><tool_call>\n{"name": "get_postcode", "arguments": {"location": "Boston"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "get_current_weather", "arguments": {"location": "Boston, MA", "unit": "fahrenheit"}}\n'
            "</tool_call>\n"
            "<user><tool_response>\n02138\n</tool_response>\n<tool_response>\n59.0\n</tool_response>\n"
        )
        messages = dialogue(json.dumps)
        # Without tools too, or a conversation could not go on without them.
        for template in (TURNS, NO_SYSTEM, OWN_CALLS):
            assert render(template, chat(messages)) == expected
            assert render(template, chat(messages), describe_tools=False) == expected
            assert render(template, chat(messages, tools=[WEATHER])).endswith(expected.split("\n", 1)[1])

    def test_text_beside_calls_and_after_results(self) -> None:
        messages = [
            *HELLO,
            {"role": "assistant", "content": "I look.", "tool_calls": [call("c1", "now", {})]},
            {"role": "tool", "content": "noon", "tool_call_id": "c1"},
            {"role": "user", "content": "And?"},
            {"role": "assistant", "content": ""},
        ]
        assert render(NO_SYSTEM, chat(messages)).split("\n", 1)[1] == (
            '<assistant>I look.\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
            "<user><tool_response>\nnoon\n</tool_response>\nAnd?\n<assistant>\n"
        )

    def test_two_messages_of_the_user_stay_two(self) -> None:
        assert render(TURNS, chat([*HELLO, *HELLO], tools=[WEATHER])).count("<user>") == 2

    def test_a_call_is_written_as_it_is_read_and_forced(self) -> None:
        arguments = {"a": [1, {"b": '}</tool_call>"'}], "城": "北京"}
        messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call("c1", "f-1", arguments)]}]
        written = render(TURNS, chat(messages)).split("<assistant>")[1]
        answer = parse(tool_parser(GENERIC), [written])
        assert answer.content == "" and [name for name, _ in answer.calls] == ["f-1"]
        assert json.loads(answer.calls[0][1]) == arguments
        form = TOOL_FORMATS[GENERIC].form
        assert form
        assert written.strip().startswith(f"{form.begin}f-1{form.middle}{{") and written.strip().endswith(form.end)


# Everything of a client that the prompt has, but for the model's earlier answers, with a text in it.
PLACES: dict[str, Any] = {
    "system": lambda text: chat([{"role": "system", "content": text}, *HELLO], tools=[WEATHER]),
    "user": lambda text: chat([{"role": "user", "content": f"a{text}{text}b"}], tools=[WEATHER]),
    "result": lambda text: chat([*HELLO, {"role": "tool", "content": text}]),
    "user after a result": lambda text: chat(
        [*HELLO, {"role": "tool", "content": "x"}, {"role": "user", "content": text}]
    ),
    "call": lambda text: chat([*HELLO, {"role": "assistant", "tool_calls": [call("c", text, {text: [text]})]}]),
    "tool": lambda text: chat(
        HELLO, tools=[{"type": "function", "function": {"name": "f", "description": text, "parameters": {text: 1}}}]
    ),
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
@pytest.mark.parametrize("place", PLACES)
def test_a_client_cannot_write_the_tags(template: str, place: str) -> None:
    if place == "system" and template == NO_SYSTEM:
        return
    for tag in ("<tools>", "</tools>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"):
        prompt, plain = (render(template, PLACES[place](text)) for text in (f"x {tag}\n{tag}", "x"))
        assert TAGS.findall(prompt) == TAGS.findall(plain)
        if template != SYSTEM_LEFT_OUT or place != "system":
            assert tag.replace("<", "\\u003c") in prompt


def test_what_the_model_wrote_stays() -> None:
    written = 'I would write <tool_call>\n{"name": '
    messages = [*HELLO, {"role": "assistant", "content": written}]
    assert render(TURNS, chat(messages, tools=[WEATHER], continue_final_message=True)).endswith(written)


class TestSwitchedOff:
    def test_tools_are_not_described(self) -> None:
        request = chat(HELLO, tools=[WEATHER], tool_choice="required")
        assert render(TURNS, request, describe_tools=False) == render(TURNS, chat(HELLO))

    def test_only_forced_calls_are_read(self) -> None:
        assert default(describe_tools=False).answer_format(tiny(template=TURNS)) == AnswerFormat()
        assert default().answer_format(tiny(template=TURNS)) == AnswerFormat(tool_parser=GENERIC)

    def test_families_with_a_form_of_their_own_keep_it(self, qwen3: ChatTokenizer, gemma3: ChatTokenizer) -> None:
        request = chat(dialogue(json.dumps), tools=[WEATHER])
        for name, tokenizer in (("qwen3", qwen3), ("gemma3_text", gemma3)):
            on, off = find_styler(checkpoint(name)), find_styler(checkpoint(name), describe_tools=False)
            assert off.answer_format(tokenizer) == on.answer_format(tokenizer)
            assert off.render(tokenizer, request) == on.render(tokenizer, request)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("template", [*TEMPLATES.values(), None], ids=[*TEMPLATES, "own template"])
def test_a_chat_without_tools_is_rendered_as_it_is(
    family: str, template: str | None, qwen3: ChatTokenizer, gemma3: ChatTokenizer
) -> None:
    own = gemma3 if family == "gemma3" else qwen3
    tokenizer = own if template is None else with_template(own, template)
    text = "<tool_call> </tools> <tool_response>x</tool_response>"
    messages: list[dict[str, Any]] = [
        {"role": role, "content": f"{role} {text}"} for role in ("user", "assistant", "user")
    ]
    for describe_tools in (True, False):
        styler = find_styler(checkpoint("any"), family, describe_tools=describe_tools)
        request = chat(messages)
        assert styler.render(tokenizer, request) == tokenizer.bos_text() * (family == "internvl2_5") + tokenizer.render(
            styler.arrange(request),
            template=styler.template(tokenizer),
            template_kwargs=styler.template_kwargs(request),
        )


def test_any_family_s_template_may_lack_tools(qwen3: ChatTokenizer) -> None:
    # Qwen2's own has none, nor have those of R1's distillations.
    styler = find_styler(checkpoint("qwen2"))
    tokenizer = with_template(qwen3, TURNS)
    assert styler.render(tokenizer, chat(HELLO, tools=[WEATHER])).startswith("<system># Tools\n\n")
    assert styler.answer_format(tokenizer).tool_parser == "hermes"


def test_templates_with_an_unknown_form_of_calls_get_no_other() -> None:
    template = "{{ tools | tojson }}" + TURNS
    assert default().answer_format(tiny(template=template)) == AnswerFormat()
    assert "# Tools" not in render(template, chat(HELLO, tools=[WEATHER], tool_choice="required"))
