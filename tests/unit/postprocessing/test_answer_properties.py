# SPDX-License-Identifier: Apache-2.0
"""However an answer is cut, its pieces add up to the same fields, and nothing of it is lost."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from common.answer_options import AnswerOptions
from families.parsers import GENERIC, REASONING_FORMATS, TOOL_FORMATS, AnswerFormat, ChatParser
from postprocessing.answer_stream import StreamDelta
from tests.support.answers import THINK, add_up, cut, parse, stream

BOUNDED = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

ANSWERS = {
    "hermes": [
        "<think>\n好的，用户问“你好，你是谁？”，我需要回答。\n</think>\n\n你好！我是通义千问。有什么需要帮助的吗？😊",
        '<think>\nI should call it.\n</think>\n\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Boston, MA"}}\n</tool_call>',
        'Both:\n<tool_call>\n{"name": "f", "arguments": {"a": [1, {"b": "}</tool_call>\\""}]}}\n</tool_call>\n'
        '<tool_call>\n{"arguments": "{\\"城\\": \\"北京\\"}", "name": "g"}\n</tool_call>\nDone 👨‍👩‍👧.',
        '<think>\n\n</think>\n\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}}\n</tool_call>\n',
        '<tool_call>\n{"name": "f", "arguments": {"code": "if a < b:\\n\\tprint(\\"<tool_call>\\")"',
        '<tool_call>\n{name: f}\n</tool_call>\n<tool_call>\n{"name": "f"}\n</tool_call>',
        'First:\n<tool_call>\n[{"name": "f", "arguments": {"a": [1]}},\n {"name": "g", "arguments": {}}]\n</tool_call>\nDone.',
        '<tool_call>[{"name": "f", "arguments": {}}, {"city": 1}]</tool_call><tool_call>[1, 2]</tool_call><tool_call>[',
        "The list [1] and <b>bold</b>, <think> and </think>, \0 and <tool_cal",
    ],
    "llama3_json": [
        '{"name": "get_weather", "parameters": {"city": "Boston, MA", "unit": "°C"}}',
        '<|python_tag|>{"name": "f", "parameters": {"a": "; {"}}; {"name": "g", "parameters": {}}',
        '{"type": "function", "name": "f", "parameters": {"a": {"b": []}}}',
        '{"name": "Bob", "age": 3} is the answer 🙂.',
        "I do not need a tool; {1} [2].",
    ],
    "gemma": [
        'Okay.\n```tool_code\n[get_weather(city="北京", days=3), g(a=[1, {"b": None}])]\n```',
        '```json\n{"name": "f", "parameters": {"a": "b, c"}}\n```\n\nLet me know 😊!\n',
        '[get_weather(city="Boston, MA"), now()]',
        '[{"name": "f", "parameters": {"a": 1}}, {"name": "g", "parameters": {}}]',
        "[1] Smith, [link](http://x). ```json\n[1, 2]\n```\n```python\nf(a=1)\n```",
        "```tool_call\nnot a call\n``",
    ],
}

FRAGMENTS = [
    *(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<tool_call>[",
        "<tool_",
        "</",
        "<|python_tag|>",
        "\n",
        "\n\n",
        " ",
        "<",
        "\r",
    ),
    *(
        "```json\n",
        "```tool_code\n",
        "\n```",
        "```",
        "`",
        "[",
        "]",
        "{",
        "}",
        '"',
        "\\",
        ":",
        ",",
        ";",
        "(",
        ")",
        "=",
        "1",
    ),
    *(
        '{"name": "f", "arguments": ',
        '{"name": "f"',
        '"arguments": ',
        '"parameters": ',
        '"type": "function"',
        "{}",
        "}}",
    ),
    *(
        '{"name": "f", "arguments": {"a": "b"}}',
        '{"a": [{"b": "}"}]}',
        '"{\\"a\\": 1}"',
        "[f(a=1)]",
        "g(b='x')",
        "null",
    ),
    *("text", "中文", "👨‍👩‍👧", "e\u0301", "\0", "\ufffd", "</tool_call>\n<tool_call>\n"),
]

# Letters found nowhere else, to be found again in the fields.
SENTINELS = "甲乙丙丁戊己庚辛"

answers = st.one_of(
    st.sampled_from([text for texts in ANSWERS.values() for text in texts]),
    st.lists(st.sampled_from(FRAGMENTS), max_size=24).map("".join),
    st.text(max_size=40),
)
places = st.lists(st.integers(0, 10_000), max_size=12)
formats = st.builds(
    AnswerFormat,
    reasoning=st.sampled_from([None, *sorted(REASONING_FORMATS)]),
    reasoning_starts_open=st.booleans(),
    # None: a family without a form of its own, whose forced calls are read.
    tool_parser=st.sampled_from([None, *sorted(TOOL_FORMATS)]),
)

choices = st.sampled_from(["auto", "required"])


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("thinking", [None, False])
@BOUNDED
@given(text=answers, places=places, answer_format=formats, tool_choice=choices)
def test_any_cut_gives_the_whole_answer(
    text: str, places: list[int], answer_format: AnswerFormat, tool_choice: str, inline: bool, thinking: bool | None
) -> None:
    options = AnswerOptions(
        chat=True, tools=True, tool_choice=tool_choice, inline_reasoning=inline, enable_thinking=thinking
    )
    whole = parse(ChatParser(answer_format, options), [text])
    assert parse(ChatParser(answer_format, options), cut(text, places)) == whole
    assert parse(ChatParser(answer_format, options), text) == whole


@pytest.mark.parametrize("family", sorted(ANSWERS))
def test_every_answer_cut_in_two_at_every_place(family: str) -> None:
    answer_format = AnswerFormat(THINK, tool_parser=family)
    options = AnswerOptions(chat=True, tools=True)
    for text in ANSWERS[family]:
        whole = parse(ChatParser(answer_format, options), [text])
        for place in range(len(text) + 1):
            assert parse(ChatParser(answer_format, options), [text[:place], text[place:]]) == whole


def test_forced_calls_of_a_family_without_a_form_are_read_as_those_of_the_generic_one() -> None:
    for text in ANSWERS[GENERIC]:
        for choice in ("required", "function:f"):
            options = AnswerOptions(chat=True, tools=True, tool_choice=choice)
            generic = parse(ChatParser(AnswerFormat(THINK, tool_parser=GENERIC), options), text)
            assert parse(ChatParser(AnswerFormat(THINK), options), text) == generic
        free = parse(ChatParser(AnswerFormat(), AnswerOptions(chat=True, tools=True)), text)
        assert (free.content, free.calls) == (text, [])


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@BOUNDED
@given(text=answers)
def test_an_answer_without_calls_is_its_content(family: str, text: str) -> None:
    options = AnswerOptions(chat=True, tools=True)
    answer = parse(ChatParser(AnswerFormat(tool_parser=family), options), [text])
    assert answer.calls or answer.content == text


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@BOUNDED
@given(text=answers, places=st.lists(st.integers(0, 10_000), min_size=1, max_size=len(SENTINELS)))
def test_every_letter_is_found_again_once(family: str, text: str, places: list[int]) -> None:
    pieces = cut(text, places)
    marked = "".join(piece + sentinel for piece, sentinel in zip(pieces, [*SENTINELS, ""], strict=False))
    answer = parse(ChatParser(AnswerFormat(THINK, tool_parser=family), AnswerOptions(chat=True, tools=True)), [marked])
    fields = answer.content + answer.reasoning + "".join(part for call in answer.calls for part in call)
    assert _sentinels(fields) == _sentinels(marked)


def _sentinels(text: str) -> Counter[str]:
    return Counter(char for char in text if char in SENTINELS)


@BOUNDED
@given(text=answers, starts_open=st.booleans())
def test_inline_reasoning_without_tools_changes_nothing(text: str, starts_open: bool) -> None:
    answer_format = AnswerFormat(THINK, reasoning_starts_open=starts_open)
    answer = parse(ChatParser(answer_format, AnswerOptions(chat=True, inline_reasoning=True)), text)
    assert (answer.content, answer.reasoning) == (text, "")


def _grouped(ids: list[int], places: list[int]) -> list[list[int]]:
    ends = sorted({place % (len(ids) + 1) for place in places} | {len(ids)})
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _finish(deltas: list[StreamDelta]) -> tuple[str | None, int | None, int | None]:
    [last] = [delta for delta in deltas if delta.finish_reason]
    return last.finish_reason, last.completion_tokens, last.reasoning_tokens


@pytest.mark.parametrize("name", ["qwen3", "gemma3"])
@BOUNDED
@given(text=answers, spellings=places, groups=places, answer_format=formats, tool_choice=choices)
def test_any_grouping_of_tokens_gives_the_whole_answer(
    name: str,
    text: str,
    spellings: list[int],
    groups: list[int],
    answer_format: AnswerFormat,
    tool_choice: str,
    request: pytest.FixtureRequest,
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    # Encoded in pieces, the text is spelled with other tokens than a tokenizer would choose, as models do.
    ids = [i for piece in cut(text, spellings) for i in tokenizer.encode(piece, add_special_tokens=False).ids]
    options = AnswerOptions(chat=True, tools=True, tool_choice=tool_choice, skip_special_tokens=False)
    spelled = tokenizer.decode(ids, skip_special_tokens=False)
    whole = parse(ChatParser(answer_format, options), [spelled])
    together = stream(tokenizer, [ids], answer_format, options)
    assert add_up(together) == whole
    for grouped in (_grouped(ids, groups), [[token_id] for token_id in ids] or [[]]):
        deltas = stream(tokenizer, grouped, answer_format, options)
        assert add_up(deltas) == whole
        assert _finish(deltas) == _finish(together)


@BOUNDED
@given(
    text=answers,
    groups=places,
    stop=st.lists(
        st.sampled_from(["\n\n", "</think>", "}}", "tool", "1", "中文", "</tool_call>", "<", "}\n"]), max_size=3
    ),
    include_stop=st.booleans(),
    chat=st.booleans(),
)
def test_any_grouping_of_tokens_stops_at_the_same_place(
    text: str, groups: list[int], stop: list[str], include_stop: bool, chat: bool, qwen3: Tokenizer
) -> None:
    ids = qwen3.encode(text, add_special_tokens=False).ids
    options = AnswerOptions(chat=chat, tools=True, stop=tuple(stop), include_stop=include_stop)
    answer_format = AnswerFormat(THINK, tool_parser="hermes")
    together = stream(qwen3, [ids], answer_format, options)
    deltas = stream(qwen3, _grouped(ids, groups), answer_format, options)
    assert add_up(deltas) == add_up(together)
    assert _finish(deltas) == _finish(together)
    if not chat and stop:
        content = add_up(deltas).content
        assert not any(item in (content if not include_stop else content[:-1]) for item in stop)
