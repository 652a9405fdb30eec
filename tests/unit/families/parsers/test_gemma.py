# SPDX-License-Identifier: Apache-2.0
import pytest

from families.parsers import ContentDelta
from families.parsers.gemma import GemmaParser
from tests.support.answers import Answer, parse_both_ways

CALL = '{"name": "f", "parameters": {"city":  "Boston, MA", "n": 1.50}}'
F = ["f", '{"city":  "Boston, MA", "n": 1.50}']


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
def test_calls(text: str, content: str, calls: list[list[str]]) -> None:
    assert parse_both_ways(GemmaParser, text) == Answer(content, "", calls)


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
def test_text(text: str) -> None:
    assert parse_both_ways(GemmaParser, text) == Answer(text)


def test_text_and_other_fences_are_passed_on_at_once() -> None:
    assert GemmaParser().feed("[1") == [ContentDelta("[1")]
    assert GemmaParser().feed("[Smith]") == [ContentDelta("[Smith]")]
    assert GemmaParser().feed('{"city"') == [ContentDelta('{"city"')]
    events = GemmaParser().feed('```json\n{"city": "B')
    assert "".join(event.text for event in events if isinstance(event, ContentDelta)) == '```json\n{"city": "B'


def test_a_long_word_is_no_name_of_a_function() -> None:
    text = "[" + "a" * 200
    assert GemmaParser().feed(text) == [ContentDelta(text)]
    assert parse_both_ways(GemmaParser, text + "(b=1)]") == Answer(text + "(b=1)]")
