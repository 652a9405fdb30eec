# SPDX-License-Identifier: Apache-2.0
import pytest

from families.parsers import ContentDelta
from tests.support.answers import Answer, parse_both_ways, tool_parser

CALL = '{"name": "f", "parameters": {"city":  "Boston, MA", "n": 1.50}}'
F = ["f", '{"city":  "Boston, MA", "n": 1.50}']


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
        ('{"name": "f", "id": "3", "parameters": null}', [["f", "{}"]]),
        ('{"name": "f", "parameters": "{\\"a\\": \\"中\\"}"}', [["f", '{"a": "中"}']]),
        ('{"name": "f", "parameters": {"a": "}; {\\"name\\": 1}"}}', [["f", '{"a": "}; {\\"name\\": 1}"}']]),
    ],
)
def test_answers_that_are_calls(text: str, calls: list[list[str]]) -> None:
    assert parse_both_ways(lambda: tool_parser("llama3_json"), text) == Answer("", "", calls)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Alice", "id": 42}',
        '{"name": "Alice", "parameters": {"a": 1}, "note": "x"}',
        '{"name": "conv", "parameters": null, "layers": [1]}',
        '{"note": "x", "name": "f", "parameters": {}}',
    ],
)
def test_other_objects_with_a_name_are_text(text: str) -> None:
    assert parse_both_ways(lambda: tool_parser("llama3_json"), text) == Answer(text, "", [])


def test_text_is_passed_on_at_once() -> None:
    for start in ("Hello", '{"city": ', "[1", "<|x"):
        assert tool_parser("llama3_json").feed(start) == [ContentDelta(start)]
