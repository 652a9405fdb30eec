# SPDX-License-Identifier: Apache-2.0
"""Chats whose earlier turns the server handed out itself, with small templates and with published ones."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.history import BLOCKS, HistoryForm, _fit, fit_history, history_form
from families.stylers.default import DefaultStyler
from tests.support.chats import call, chat, tiny, tool
from tests.support.templates import NAMES, published

USER = {"role": "user", "content": "Which?"}
TOOLS = [tool("get_weather", city={"type": "string", "description": "where"})]
# Ids as the parsers make them.
IDS = ["call_0123456789abcdef01234567", "call_0123456789abcdef01234568"]
CALLS = """{% for m in messages %}{{ m.role }}:{{ m.content }}{% for c in m.tool_calls or [] %}
({{ c.function.name }} {{ c.function.arguments | tojson }} {{ c.id }}){% endfor %}{% if m.role == 'tool' %}
={{ m.tool_call_id }}{% endif %};{% endfor %}"""
NINE = """{% for m in messages %}{% for c in m.tool_calls or [] %}{% if c.id is not defined or c.id | length != 9 %}
{{ raise_exception('nine!') }}{% endif %}{% endfor %}{% endfor %}"""
ONE_CALL = """{% for m in messages %}{% if m.tool_calls and m.tool_calls | length != 1 %}
{{ raise_exception('one!') }}{% endif %}{% endfor %}"""
SYSTEM = """{% for m in messages %}{% if m.role == 'system' and not loop.first %}{{ raise_exception('first!') }}{% endif %}
{{ m.role }}={{ m.content }};{% endfor %}"""


@pytest.fixture(scope="module")
def bare(qwen3_tokenizer_dir: Any) -> ChatTokenizer:
    """A tokenizer with a BOS token, which some published templates read."""
    tokenizer = ChatTokenizer.load(qwen3_tokenizer_dir)
    tokenizer._tokenizer.bos_token = "<|endoftext|>"
    return tokenizer


def answer(*arguments: Any, content: str | None = None, **fields: Any) -> dict[str, Any]:
    calls = [call(call_id, "get_weather", given) for call_id, given in zip(IDS, arguments, strict=False)]
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **fields}


def result(at: int, content: str | None) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": IDS[at], "content": content}


def one_call(arguments: Any, **fields: Any) -> list[dict[str, Any]]:
    return [USER, answer(arguments, **fields), result(0, "RAIN")]


def render(source: str, messages: Any, **fields: Any) -> str:
    """The prompt of a template that has a form for tools."""
    return DefaultStyler().render(tiny(template=source + "{# tools #}"), chat(messages, **fields))


def fitted(source: str, messages: Any) -> list[dict[str, Any]]:
    return fit_history(tiny(), source, chat(messages).messages)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking", "thought"])
@pytest.mark.parametrize("given", ["reasoning_content", "reasoning"])
def test_the_field_that_the_template_reads(field: str, given: str) -> None:
    source = "{% for m in messages %}{{ m.content }}{{ m." + field + " or '' }}{% endfor %}"
    assert render(source, [USER, answer(content="A", **{given: "R"}), USER]) == "Which?ARWhich?"


def test_reasoning_is_given_once() -> None:
    """A template that writes two fields gets one of them."""
    source = "{% for m in messages %}{{ m.reasoning }}{{ m.thinking }}{{ m.reasoning_content }}{% endfor %}"
    assert render(source, [USER, answer(content="A", reasoning="R")]) == "R"


def test_reasoning_that_is_only_written_if_it_is_on() -> None:
    source = "{% for m in messages %}{% if enable_thinking %}{{ m.reasoning }}{% endif %}{% endfor %}"
    assert render(source, [USER, answer(content="A", reasoning="R"), USER], enable_thinking=True) == "R"


def test_reasoning_as_a_part_of_the_content() -> None:
    source = """{% for m in messages %}{% if m.content == '' and not m.tool_calls %}{{ raise_exception('empty!') }}
{% endif %}{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}
[{{ part.type }} {{ part.thinking or part.text }}]{% endfor %}{% endif %}{% endfor %}"""
    assert history_form(tiny(), source) == HistoryForm(reasoning=BLOCKS)
    assert fitted(source, [USER, answer(content="A", reasoning="R")])[1]["content"] == [
        {"type": "thinking", "thinking": "R"},
        {"type": "text", "text": "A"},
    ]
    assert fitted(source, [USER, answer(content="A")])[1]["content"] == "A"
    # An answer that ended before its first token.
    assert fitted(source, [USER, answer(content="")])[1]["content"] == [{"type": "text", "text": ""}]


def test_a_template_that_writes_parts_as_they_are() -> None:
    for written in ("{{ m.content }}", "{{ m.content | tojson }}"):
        form = history_form(tiny(), "{% for m in messages %}" + written + "{% endfor %}")
        assert form.reasoning == "reasoning_content"


def test_reasoning_or_text_beside_calls() -> None:
    source = """{% for m in messages %}{% if m.tool_calls and m.content and m.thinking %}{{ raise_exception('both!') }}
{% endif %}{{ m.thinking }}{{ m.content }}{% endfor %}"""
    assert render(source, one_call("{}", content="T", reasoning="R"), tools=TOOLS) == "Which?R\n\nTRAIN"


def test_ids_of_nine_characters() -> None:
    prompt = render(NINE + CALLS, one_call("{}"), tools=TOOLS)
    called, answered = re.findall(r"(?: |=)([a-z0-9]{9})\b", prompt)
    assert called == answered
    # The same in the next request, and one that is right already stays.
    assert called in render(NINE + CALLS, [*one_call("{}"), USER], tools=TOOLS)
    own = [
        USER,
        {**answer(), "tool_calls": [call("abcDEF012", "f", "{}")]},
        {**result(0, "x"), "tool_call_id": "abcDEF012"},
    ]
    assert render(NINE + CALLS, own, tools=TOOLS).count("abcDEF012") == 2


def test_calls_and_results_without_ids() -> None:
    calls = [{"type": "function", "function": {"name": name, "arguments": "{}"}} for name in ("f", "g")]
    messages = [
        USER,
        {**answer(), "tool_calls": calls},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    ]
    (_, turn, *results) = fitted(
        "{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.id + '' }}{% endfor %}{% endfor %}", messages
    )
    assert [one["id"] for one in turn["tool_calls"]] == [one["tool_call_id"] for one in results] == ["call_0", "call_1"]
    split = fitted(ONE_CALL + "{% for m in messages %}{{ m.tool_calls or m.content }}{% endfor %}", messages)
    assert [turn.get("content") or turn["tool_calls"][0]["function"]["name"] for turn in split] == [
        "Which?",
        "f",
        "1",
        "g",
        "2",
    ]


def test_ids_of_kimi_k2() -> None:
    source = CALLS + "{# <|tool_call_argument_begin|> #}"
    again = [*one_call("{}"), answer("{}"), result(0, "SUN")]
    prompt = render(source, again, tools=TOOLS)
    assert re.findall(r"functions\.get_weather:\d", prompt) == [f"functions.get_weather:{n}" for n in (0, 0, 1, 1)]


def test_one_call_in_a_turn() -> None:
    messages = [USER, answer("{}", "{}", content="T"), result(1, "SUN"), result(0, "RAIN"), USER]
    turns = [
        (turn["role"], turn["content"], turn.get("tool_call_id") or [one["id"] for one in turn.get("tool_calls", ())])
        for turn in fitted(ONE_CALL + CALLS, messages)
    ]
    assert turns == [
        ("user", "Which?", []),
        ("assistant", "T", IDS[:1]),
        ("tool", "RAIN", IDS[0]),
        ("assistant", "", IDS[1:]),
        ("tool", "SUN", IDS[1]),
        ("user", "Which?", []),
    ]


def test_arguments_as_text() -> None:
    source = """{% for m in messages %}{% for c in m.tool_calls or [] %}{{ c.function.arguments + '' }}{% endfor %}
{% endfor %}"""
    assert '{"city": "北京"}' in render(source, one_call('{"city": "北京"}'), tools=TOOLS)


def test_leading_system_messages() -> None:
    systems = [{"role": "system", "content": "S"}, {"role": "developer", "content": "D"}]
    for source in (
        SYSTEM,
        SYSTEM.replace("raise_exception('first!')", "''").replace(
            "m.content", "m.content if loop.first or m.role != 'system'"
        ),
    ):
        assert "system=S\n\nD;" in render(source, [*systems, USER])
    both = SYSTEM.replace("raise_exception('first!')", "''")
    assert "system=S;" in render(both, [*systems, USER])
    # A later one is refused by the template itself.
    with pytest.raises(RequestError, match="first!"):
        render(SYSTEM, [USER, *systems])


def test_a_chat_without_earlier_turns_stays() -> None:
    messages = chat([USER]).messages
    assert fit_history(tiny(), "{{ raise_exception('never rendered') }}", messages) is messages


def test_a_template_that_iterates_over_tools_in_every_chat() -> None:
    assert render("{% for t in tools %}t{% endfor %}{{ messages[0].content }}", [USER]) == "Which?"


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Turns with calls and their results in any order, some left out, some without ids."""
    messages: list[dict[str, Any]] = [USER]
    for _ in range(draw(st.integers(1, 3))):
        ids = draw(st.lists(st.sampled_from(["a", "abcdef123", *IDS]), unique=True, max_size=3))
        given = draw(st.booleans())
        calls = [{**call(one, f"f_{one}", {"x": one}), **({} if given else {"id": None})} for one in ids]
        messages.append(answer(content=draw(st.sampled_from(["", "text"])), **({"tool_calls": calls} if calls else {})))
        answered = draw(st.permutations(ids)) if given else ids
        for one in answered[: draw(st.integers(0, 3))]:
            messages.append({"role": "tool", "content": f"result {one}", **({"tool_call_id": one} if given else {})})
    return messages


@given(
    conversations(), st.booleans(), st.booleans(), st.sampled_from(["own", "required", "nine", "kimi"]), st.booleans()
)
def test_nothing_of_a_conversation_is_lost(
    messages: list[dict[str, Any]], several: bool, text: bool, ids: Any, both: bool
) -> None:
    form = HistoryForm(several_calls=several, arguments="text" if text else "object", ids=ids, reasoning_or_text=both)
    normal = chat(messages).messages
    before = json.dumps(normal)
    fitted = _fit(normal, form)
    assert json.dumps(normal) == before, "changed in place"
    names = [one["function"]["name"] for turn in fitted for one in turn.get("tool_calls", ())]
    assert names == [one["function"]["name"] for turn in normal for one in turn.get("tool_calls", ())]
    results = [turn["content"] for turn in fitted if turn["role"] == "tool"]
    assert sorted(results) == sorted(turn["content"] for turn in normal if turn["role"] == "tool")
    assert "".join(turn["content"] for turn in fitted if turn["role"] == "assistant") == "".join(
        turn["content"] for turn in normal if turn["role"] == "assistant"
    )
    calls: dict[str, str] = {}
    for turn in fitted:
        assert several or len(turn.get("tool_calls", ())) <= 1
        calls |= {one["id"]: one["function"]["name"] for one in turn.get("tool_calls", ()) if "id" in one}
        if turn["role"] == "tool" and "tool_call_id" in turn:
            assert calls[turn["tool_call_id"]] == turn["content"].replace("result ", "f_")
    if ids == "nine":
        assert all(re.fullmatch("[a-zA-Z0-9]{9}", one) for one in calls)


ARGUMENTS = [
    "",
    None,
    "[]",
    "{}",
    "null",
    "true",
    '{"city": "Par',
    '{"city"',
    "Paris, of course",
    '{"a": [1, {"b": null}]}',
    [],
    {},
]


def histories() -> Iterator[list[dict[str, Any]]]:
    """What the server may have handed out, with the results and turns that follow."""
    for arguments in ARGUMENTS:
        yield one_call(arguments)
    cut = '{"city": "Par'
    yield one_call("{}", content="text")
    yield one_call("{}", content="text", reasoning="why")
    yield one_call("{}", content="", reasoning_content="why")
    yield [USER, answer("{}"), result(0, None)]
    yield [USER, answer("{}"), {"role": "tool", "tool_call_id": IDS[0]}]
    yield [USER, answer("{}", cut), result(0, "RAIN"), result(1, "")]
    yield [*one_call("{}"), answer(cut, content=""), result(0, "SUN")]
    yield [*one_call("{}"), answer(content="It rains."), USER]
    for content in (None, ""):
        yield [USER, answer(content=content), USER]
        yield [USER, answer(content=content, reasoning="cut off while thinking"), USER]


# They render no chat with calls: they need other variables, or what the sandbox of transformers forbids.
UNUSABLE = {
    "Kimi-K2-Instruct",
    "Kimi-K2-Thinking",
    "fireworks-ai-llama-3-firefunction-v2",
    "llama-cpp-deepseek-r1",
}
PUBLISHED = [name for name in NAMES if name not in UNUSABLE] or ["none"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_templates_take_back_what_the_server_hands_out(bare: ChatTokenizer, name: str) -> None:
    bare.template = published(name)
    for messages in histories():
        for fields in ({"tools": TOOLS}, {"tools": TOOLS, "enable_thinking": True}):
            assert DefaultStyler().render(bare, chat(messages, **fields)), json.dumps(messages)


# A system message is not for them, or is refused as before.
WITHOUT_SYSTEM = {"google-gemma-2-2b-it"}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in WITHOUT_SYSTEM])
def test_published_templates_write_all_leading_instructions(bare: ChatTokenizer, name: str) -> None:
    bare.template = published(name)
    systems = [{"role": "system", "content": "RULE"}, {"role": "developer", "content": "MORE"}]
    prompt = DefaultStyler().render(bare, chat([*systems, USER], tools=TOOLS))
    assert "RULE" in prompt
    assert "MORE" in prompt


# Templates that write no reasoning of earlier turns, as read off their text.
SILENT = {
    *(
        "Apertus-8B-Instruct",
        "CohereForAI-c4ai-command-r-plus-tool_use",
        "GigaChat3-10B-A1.8B",
        "GigaChat3.1-10B-A1.8B",
    ),
    *("HuggingFaceTB-SmolLM3-3B", "LFM2-8B-A1B", "LFM2.5-Instruct", "MiMo-VL", "MiniMax-M1", "NVIDIA-Nemotron-Nano-v2"),
    *(
        "Mistral-Small-3.2-24B-Instruct-2506",
        "mistralai-Mistral-Nemo-Instruct-2407",
        "unsloth-mistral-Devstral-Small-2507",
    ),
    *("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "NousResearch-Hermes-3-Llama-3.1-8B-tool_use"),
    *("Qwen-QwQ-32B", "Qwen-Qwen2.5-7B-Instruct", "Qwen3-Coder", "google-gemma-2-2b-it"),
    *(
        "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "deepseek-ai-DeepSeek-V3.1",
    ),
    *(
        "ibm-granite-granite-3.3-2B-Instruct",
        "ibm-granite-granite-4.0",
        "ibm-granite-granite-4.1",
        "llama-cpp-rwkv-world",
    ),
    *("meetkai-functionary-medium-v3.1", "meetkai-functionary-medium-v3.2", "microsoft-Phi-3.5-mini-instruct"),
    *("meta-llama-Llama-3.1-8B-Instruct", "meta-llama-Llama-3.2-3B-Instruct", "meta-llama-Llama-3.3-70B-Instruct"),
    "moonshotai-Kimi-K2",
}
# It writes only that of a last message.
LAST_ONLY = {"Apriel-1.6-15b-Thinker-fixed"}


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in LAST_ONLY])
def test_published_templates_write_reasoning_once(bare: ChatTokenizer, name: str) -> None:
    """In a chain of calls, where every template that knows reasoning writes it; never twice anywhere."""
    bare.template = published(name)
    chain = [
        *one_call("{}", reasoning="FIRST_WHY"),
        answer('{"city": "Rome"}', content="", reasoning="NEXT_WHY"),
        result(0, "SUN"),
    ]
    prompt = DefaultStyler().render(bare, chat(chain, tools=TOOLS, enable_thinking=True))
    wanted = 0 if name in SILENT else 1
    assert (prompt.count("FIRST_WHY"), prompt.count("NEXT_WHY")) == (wanted, wanted)
    earlier = [USER, answer(content="Rain.", reasoning="FIRST_WHY"), USER]
    assert DefaultStyler().render(bare, chat(earlier, enable_thinking=True)).count("FIRST_WHY") <= wanted
