# SPDX-License-Identifier: Apache-2.0
import pytest

from families.parsers import ContentDelta, ToolArgumentsDelta, ToolCallStart
from tests.support.answers import Answer, parse, parse_both_ways, tool_parser

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Boston, MA"}}\n</tool_call>'
WEATHER = ["get_weather", '{"city": "Boston, MA"}']


def read(text: str) -> Answer:
    return parse_both_ways(lambda: tool_parser("hermes"), text)


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (CALL, "", [WEATHER]),
        (f"{CALL}\n{CALL}\n", "", [WEATHER, WEATHER]),
        (f"\n\n{CALL}{CALL}", "", [WEATHER, WEATHER]),
        (f"Let me look.\n\n{CALL}", "Let me look.", [WEATHER]),
        (f"{CALL}\n\nDone.\n", "Done.\n", [WEATHER]),
        (f"One\n\n{CALL}\nTwo\n{CALL} Three", "One\n\nTwo\nThree", [WEATHER, WEATHER]),
        (f"One{CALL} Two", "One Two", [WEATHER]),
        ("  plain text \n", "  plain text \n", []),
    ],
)
def test_calls_between_text(text: str, content: str, calls: list[list[str]]) -> None:
    assert read(text) == Answer(content, "", calls)


F, G = '{"name": "f", "arguments": {"a": [1]}}', '{"name": "g"}'
READ = [["f", '{"a": [1]}'], ["g", "{}"]]


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (f"<tool_call>[{F}, {G}]</tool_call>", "", READ),
        (f"One\n<tool_call>\n[\n{F}\n,{G}\n]\n</tool_call>\nTwo", "One\nTwo", READ),
        (f"<tool_call>[{F}]</tool_call>\n<tool_call>{G}</tool_call>", "", READ),
        (f"<tool_call>[{F}, {G}", "", READ),
        (f"<tool_call>[{F},", "", READ[:1]),
        (f'<tool_call>[{F}, {{"city": 1}}]</tool_call>', '{"city": 1}]', READ[:1]),
        (f"<tool_call>[{F} {G}]</tool_call>", f"{G}]", READ[:1]),
        ("<tool_call> []</tool_call>", "<tool_call> []</tool_call>", []),
        ("<tool_call>[1, 2]</tool_call>", "<tool_call>[1, 2]</tool_call>", []),
        (f"<tool_call>[[{F}]]</tool_call>", f"<tool_call>[[{F}]]</tool_call>", []),
        (f"<tool_call>{F}, {G}</tool_call>", f", {G}", READ[:1]),
        ("<tool_call>[", "<tool_call>[", []),
    ],
)
def test_an_array_of_calls(text: str, content: str, calls: list[list[str]]) -> None:
    assert read(text) == Answer(content, "", calls)


@pytest.mark.parametrize(
    "arguments",
    [
        "{}",
        '{ "a" :\t1.50,\n "b": [1, {"c": null}] }',
        '{"tag": "</tool_call><tool_call>", "braces": "}{][", "quote": "\\"}", "slash": "\\\\"}',
        '{"escaped": "\\u4e2d\\n", "city": "北京", "emoji": "👨‍👩‍👧", "nul": "\\u0000"}',
        '{"a": {"b": {"c": {"d": [[[]]]}}}}',
        "[1, 2]",
        "null",
        "3.50",
        '"text"',
        '"[1]"',
        '"\\ud800"',
    ],
)
@pytest.mark.parametrize(
    "form",
    [
        '{"name": "f", "arguments": %s}',
        '{"name":"f","arguments":%s}',
        '{"arguments": %s, "name": "f"}',
        '{"type": "function", "name": "f", "parameters": %s }',
        '\n{"name": "f", "arguments": %s, "type": "function"}\n',
    ],
)
def test_arguments_come_byte_for_byte(form: str, arguments: str) -> None:
    text = f"<tool_call>{form % arguments}</tool_call>"
    assert read(text) == Answer("", "", [["f", arguments]])


@pytest.mark.parametrize(
    "value", ["3", '"x"', "null", "-1.5e3", "true", '{"a": ["}", {}]}', "[]", '"<tool_call>\\""', '""']
)
@pytest.mark.parametrize("key", ["id", "tool_call_id", "index", "type", "thought", "\\ud800", 'a\\"b', "arguments "])
@pytest.mark.parametrize(
    "form",
    [
        '{"%s": %s, "name": "f", "arguments": {"a": [1]}}',
        '{"name": "f", "%s": %s, "arguments": {"a": [1]}}',
        '{"name": "f", "arguments": {"a": [1]}, "%s": %s}',
        '{"arguments": {"a": [1]}, "%s" :\n%s , "name": "f"}',
        '{"name": "f", "arguments": {"a": [1]}, "other": {}, "%s":%s}',
    ],
)
def test_other_keys_of_a_call_are_skipped(form: str, key: str, value: str) -> None:
    text = f"A <tool_call>{form % (key, value)}</tool_call> B"
    assert read(text) == Answer("A B", "", READ[:1])
    assert read(f"<tool_call>[{form % (key, value)}, {G}]</tool_call>") == Answer("", "", READ)


def test_a_number_as_id_needs_no_arguments() -> None:
    assert read('<tool_call>{"name": "g", "id": 7}</tool_call>') == Answer("", "", READ[1:])


def test_what_follows_the_arguments_cannot_change_the_call() -> None:
    again = '{"name": "f", "arguments": {"a": [1]}, "name": 2, "parameters": null}'
    assert read(f"<tool_call>{again}</tool_call>") == Answer("", "", READ[:1])


def test_arguments_written_as_a_json_string() -> None:
    text = '<tool_call>{"name": "f", "arguments": "{\\"city\\":  \\"\\u5317京\\"}"}</tool_call>'
    assert read(text).calls == [["f", '{"city":  "北京"}']]


def test_missing_arguments_are_an_empty_object() -> None:
    assert read('<tool_call>{"name": "f"}</tool_call>').calls == [["f", "{}"]]


def test_names_are_decoded() -> None:
    assert read('<tool_call>{"name": "\\u5317\\"京", "arguments": {}}</tool_call>').calls == [['北"京', "{}"]]


def test_a_missing_closing_tag_at_the_end() -> None:
    assert read(CALL.removesuffix("\n</tool_call>")).calls == [WEATHER]
    assert read(CALL.removesuffix("tool_call>")) == Answer("</", "", [WEATHER])


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "<tool_call>\n",
        "half a <tool_ca",
        "a </tool_call> b",
        "<tool_call>not JSON</tool_call>",
        "<tool_call>[1]</tool_call>",
        "<tool_call>{}</tool_call>",
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "a\nb", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "other": {}}</tool_call>',
        '<tool_call>{"name": "f", "name": "g"}</tool_call>',
        '<tool_call>{"type": "tool", "name": "g"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": nul}</tool_call>',
        '<tool_call>{"name": "f", "arguments": NaN}</tool_call>',
        '<tool_call>{"name": "f", "arguments": }</tool_call>',
        '<tool_call>{"name": "f", "arguments": "\\x"}</tool_call>',
        '<tool_call>{"arguments": {"a": 1}}</tool_call>',
        '<tool_call>{"arguments": {"a": [1}}, "name": "f"}</tool_call>',
        '<tool_call>{"name": "f",}</tool_call>',
        '<tool_call>{"name": "f", "age": 3}</tool_call>',
        '<tool_call>{"name": "f", "age": 3, "id": 3}</tool_call>',
        '<tool_call>{"name": "f", "age": nul, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "age": [}, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "age": , "arguments": {}}</tool_call>',
        '<tool_call>{"\\x": 1, "name": "f", "arguments": {}}</tool_call>',
        '<tool_call>\n{"name": "get_wea',
        '<tool_call>\n{"name": "f", "arguments":',
        '<tool_call>\n{"name": "f", "arguments": "{\\"a\\": ',
        'text [1] <b>bold</b> {"name": "f", "arguments": {}} \0 < <t </ ',
    ],
)
def test_what_is_no_call_stays_in_the_content(text: str) -> None:
    assert read(text) == Answer(text)


def test_a_call_inside_a_failed_one_is_found() -> None:
    assert read(f"<tool_call>\n{CALL}") == Answer("<tool_call>", "", [WEATHER])


def test_arguments_that_break_go_on_to_the_closing_tag() -> None:
    broken = '{"a": [1}, "b": "x"}}\n'
    text = f'<tool_call>{{"name": "f", "arguments": {broken}</tool_call>\n{CALL}'
    assert read(text) == Answer("", "", [["f", broken], WEATHER])


def test_arguments_cut_short_by_the_closing_tag() -> None:
    text = f'<tool_call>{{"name": "f", "arguments": {{"a": 1\n</tool_call>{CALL}'
    assert read(text) == Answer("", "", [["f", '{"a": 1\n'], WEATHER])


@pytest.mark.parametrize("rest", ['{"a": "unfinished', '{"a": [1, {"b": 2}', '{"a": 1</tool_', '{"a": "\\'])
def test_arguments_cut_short_by_the_end(rest: str) -> None:
    assert read('<tool_call>{"name": "f", "arguments": ' + rest) == Answer("", "", [["f", rest]])


def test_what_stands_behind_complete_arguments_is_content() -> None:
    extra = CALL.replace("}}\n", "}}}\n")
    assert read(f"{extra}\n{CALL}") == Answer("}", "", [WEATHER, WEATHER])
    other = CALL.replace("}}\n", '}, "id": x}\n')
    assert read(other) == Answer(', "id": x}', "", [WEATHER])
    missing = CALL.replace("}}\n", "}\n")
    assert read(f"{missing}\n{CALL}") == Answer("", "", [WEATHER, WEATHER])


def test_events_come_as_soon_as_they_are_certain() -> None:
    parser = tool_parser("hermes")
    assert parser.feed("Look <") == [ContentDelta("Look")]
    assert parser.feed('tool_call>{"name": "f"') == []
    [start, brace] = parser.feed(', "arguments": {')
    assert isinstance(start, ToolCallStart)
    assert (start.index, start.name) == (0, "f")
    assert start.id.startswith("call_") and len(start.id) == 29
    assert brace == ToolArgumentsDelta(0, "{")
    assert parser.feed('"a": ') == [ToolArgumentsDelta(0, '"a": ')]
    assert parser.feed("1}}") == [ToolArgumentsDelta(0, "1}")]
    assert parser.feed("</tool_call>\n") == []
    assert parser.flush() == []


def test_long_arguments_character_by_character() -> None:
    body = '{"text": "' + 'x < y \\" } ' * 20_000 + '"}'
    text = f'<tool_call>{{"name": "f", "arguments": {body}}}</tool_call>'
    assert parse(tool_parser("hermes"), text).calls == [["f", body]]
