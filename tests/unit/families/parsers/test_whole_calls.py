# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from families.parsers import Parser
from families.parsers.gemma import GemmaParser
from families.parsers.whole_calls import read_json_calls, read_python_calls
from tests.support.answers import Answer, parse_both_ways, tool_parser

CALL = '{"name": "f", "parameters": {"city":  "Boston, MA", "n": 1.50}}'


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
@pytest.mark.parametrize("parser", [lambda: tool_parser("llama3_json"), GemmaParser])
def test_other_answers_stay_text(parser: type[Parser], text: str) -> None:
    assert parse_both_ways(parser, text) == Answer(text)


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
