# SPDX-License-Identifier: Apache-2.0
"""The families whose calls are read as a whole: llama3_json and gemma; and the registry."""

import json

import pytest

from common.answer_options import AnswerOptions
from families.parsers import TOOL_PARSERS, AnswerFormat, ChatParser, ContentDelta, Parser, find_tool_parser
from families.parsers.gemma import GemmaParser
from families.parsers.llama3_json import Llama3JsonParser
from families.parsers.whole_calls import read_json_calls, read_python_calls
from tests.support.answers import Answer, parse

CALL = '{"name": "f", "parameters": {"city":  "Boston, MA", "n": 1.50}}'
F = ["f", '{"city":  "Boston, MA", "n": 1.50}']


def both_ways(parser: type[Parser], text: str) -> Answer:
    """The answer of the text as a whole, which must be that of its characters."""
    whole = parse(parser(), [text])
    assert parse(parser(), text) == whole
    return whole


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (CALL, [F]),
        (f" \n{CALL}\n", [F]),
        (f"<|python_tag|>{CALL}", [F]),
        (f"\n<|python_tag|> {CALL}; {CALL};{CALL}", [F, F, F]),
        (f"[{CALL},\n{CALL}]", [F, F]),
        (CALL.replace("parameters", "arguments"), [F]),
        ('{"type": "function", "name": "f", "parameters": {}}', [["f", "{}"]]),
        ('{"name": "f"}', [["f", "{}"]]),
        ('{"name": "f", "parameters": "{\\"a\\": \\"中\\"}"}', [["f", '{"a": "中"}']]),
        ('{"name": "f", "parameters": {"a": "}; {\\"name\\": 1}"}}', [["f", '{"a": "}; {\\"name\\": 1}"}']]),
    ],
)
def test_llama_answers_that_are_calls(text: str, calls: list[list[str]]) -> None:
    assert both_ways(Llama3JsonParser, text) == Answer("", "", calls)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "plain [1] <b>",
        f"text {CALL}",
        f"{CALL} text",
        f"{CALL};",
        f"{CALL};; {CALL}",
        f"{CALL}, {CALL}",
        f"[{CALL};{CALL}]",
        f"[{CALL}",
        f"{CALL}]",
        "[]",
        CALL[:-1],
        '{"name": "Bob", "age": 3}',
        '{"name": "Bob", "parameters": [1]}',
        '{"name": "Bob", "parameters": {"a": 1,}}',
        '{"name": "Bob", "parameters": {"a": NaN}}',
        '{"city": "Boston"}',
        '{"na',
        '<|python_tag|>search.call(query="x")',
        "<|python",
    ],
)
@pytest.mark.parametrize("parser", [Llama3JsonParser, GemmaParser])
def test_other_answers_stay_text(parser: type[Parser], text: str) -> None:
    assert both_ways(parser, text) == Answer(text)


def test_llama_text_is_passed_on_at_once() -> None:
    for start in ("Hello", '{"city": ', "[1", "<|x"):
        assert Llama3JsonParser().feed(start) == [ContentDelta(start)]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"```json\n{CALL}\n```", "", [F]),
        (f"```tool_call\n{CALL}\n```\n", "", [F]),
        (f"```json\n[{CALL}, {CALL}]\n```", "", [F, F]),
        (f"Sure:\n\n```json\n{CALL}\n```\n\nDone.", "Sure:\n\nDone.", [F]),
        ("```tool_code\n[f(a=1), g.h()]\n```", "", [["f", '{"a": 1}'], ["g.h", "{}"]]),
        ("Okay.\n```tool_code\nf(city='北京')\n```", "Okay.", [["f", '{"city": "北京"}']]),
        (f"```json\n{CALL}", "", [F]),
        (CALL, "", [F]),
        (f"[{CALL}]", "", [F]),
        ('[f(a=1, b="x"), g()]', "", [["f", '{"a": 1, "b": "x"}'], ["g", "{}"]]),
        (' [ f ( s = "👋 中\\n]" ) ]\n', "", [["f", '{"s": "👋 中\\n]"}']]),
        ("```json\n[1]\n```\n```json\n" + CALL + "\n```", "```json\n[1]\n```", [F]),
    ],
)
def test_gemma_calls(text: str, content: str, calls: list[list[str]]) -> None:
    assert both_ways(GemmaParser, text) == Answer(content, "", calls)


@pytest.mark.parametrize(
    "text",
    [
        "[1]",
        "[1] Smith (2020)",
        "[]",
        "[link](http://x) [f(a=1)]",
        "[f(1)]",
        "[f(x)]",
        "[f(a=b)]",
        "[f(**a)]",
        "[f(a=1), 2]",
        "[f(a=1)",
        "[f(a=1)] text",
        "f(a=1)",
        "[(lambda: 1)(a=1)]",
        "[f(a=g(b=1))]",
        "```tool_code\nprint('hi')\n```",
        "```tool_code\nx = 1\n```\n",
        "```json\n{}\n```",
        '```json\n{"name": "Bob", "age": 3}\n```\ntext',
        '```jsonc\n{"name": "f", "parameters": {}}\n```',
        "```python\nf(a=1)\n```",
        "```json",
        "```json\n\n",
        "```js",
        "``",
        f"```json\n{CALL}\n``",
        f"```json\n{CALL}\n``x",
        "a ```json b ```",
    ],
)
def test_gemma_text(text: str) -> None:
    assert both_ways(GemmaParser, text) == Answer(text)


def test_gemma_text_and_other_fences_are_passed_on_at_once() -> None:
    assert GemmaParser().feed("[1") == [ContentDelta("[1")]
    assert GemmaParser().feed("[Smith]") == [ContentDelta("[Smith]")]
    assert GemmaParser().feed('{"city"') == [ContentDelta('{"city"')]
    events = GemmaParser().feed('```json\n{"city": "B')
    assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == '```json\n{"city": "B'


def test_a_long_word_is_no_name_of_a_function() -> None:
    text = "[" + "a" * 200
    assert GemmaParser().feed(text) == [ContentDelta(text)]
    assert both_ways(GemmaParser, text + "(b=1)]") == Answer(text + "(b=1)]")


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1", 1),
        ("-1.5e3", -1500.0),
        ("True", True),
        ("false", False),
        ("None", None),
        ("null", None),
        ("'it\\'s'", "it's"),
        ('"""two\nlines"""', "two\nlines"),
        ("r'\\d'", "\\d"),
        ("'\\d'", "\\d"),
        ("[1, [2], (3, 4)]", [1, [2], [3, 4]]),
        ("{'a': {'b': true}, '中': []}", {"a": {"b": True}, "中": []}),
    ],
)
def test_python_values_become_json(written: str, value: object) -> None:
    calls = read_python_calls(f"f(a={written})")
    assert calls is not None
    assert json.loads(calls[0].arguments) == {"a": value}


@pytest.mark.parametrize(
    "written",
    ["b'x'", "{1, 2}", "{[1]}", "1j", "1e999", "{1: 2}", "{**a}", "...", "f'x'", "x", "1 + 1", "'\\ud800'", "\0"],
)
def test_python_values_without_json_are_no_call(written: str) -> None:
    assert read_python_calls(f"f(a={written})") is None


@pytest.mark.parametrize("written", ["f()(a=1)", "(lambda: 1)(a=1)", "f[0](a=1)", "f", "[f]", ""])
def test_only_names_are_called(written: str) -> None:
    assert read_python_calls(written) is None


def test_hostile_nesting_is_no_call() -> None:
    for bracket in "[({-~":
        assert read_python_calls(f"f(a={bracket * 100_000}") is None
    assert read_python_calls("f(a=" + "-" * 3_000 + "1)") is None
    assert read_json_calls('{"name": "f", "parameters": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}}") is None


def test_unknown_parsers_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'pythonic'; known: gemma, hermes, llama3_json"):
        find_tool_parser("pythonic")
    with pytest.raises(ValueError, match="known"):
        AnswerFormat(tool_parser="pythonic")


@pytest.mark.parametrize("name", sorted(TOOL_PARSERS))
@pytest.mark.parametrize("options", [{"tools": False}, {"tools": True, "tool_choice": "none"}])
def test_without_tools_markup_is_text(name: str, options: dict[str, object]) -> None:
    text = f"<tool_call>{CALL}</tool_call>{CALL}```json\n{CALL}\n```"
    parser = ChatParser(AnswerFormat(tool_parser=name), AnswerOptions(chat=True, **options))  # type: ignore[arg-type]
    assert parse(parser, text) == Answer(text)
