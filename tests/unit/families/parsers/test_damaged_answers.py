# SPDX-License-Identifier: Apache-2.0
"""Damaged answers of every format: cut off, garbled, joined, with markup where none belongs."""

import json
import random
from collections import Counter
from collections.abc import Callable

import pytest

from common.answer_options import AnswerOptions
from common.chat.text_arguments import text_arguments
from families.parsers import REASONING_FORMATS, TOOL_FORMATS, AnswerFormat, ChatParser, ToolCallStart
from tests.support.answer_corpus import CORPUS, TOOLS
from tests.support.answers import Answer, cut, gather, parse, parse_cut

TEXTS = text_arguments(TOOLS)
MARKERS = sorted(
    {marker for form in TOOL_FORMATS.values() if form.markup for marker in form.markup.markers}
    | {marker for form in REASONING_FORMATS.values() for marker in form.markers}
)
CHARACTERS = ["\n", " ", "\n\n", '"', "\\", "é", "\0", "🙂", *"{}[]<>=,:/`"]
# Letters found nowhere else, to be found again in the fields.
SENTINELS = "甲乙丙丁戊己庚辛"
# Formats with text in their markup that no field has: ids and attributes that are not used, headers of messages.
UNREAD = {"apriel", "cohere_command", "kimi_k3", "mistral", "openai"}
ROUNDS = 40


def damaged(name: str, chance: random.Random) -> str:
    """An answer of a format with up to four faults."""
    answers = [sample.answer for sample in CORPUS[name].samples]
    own = list(AnswerFormat(CORPUS[name].reasoning, tool_parser=name).markers) or ["{"]
    text = chance.choice(answers)
    for _ in range(chance.randint(0, 4)):
        start = chance.randint(0, len(text))
        end = min(len(text), start + chance.choice([1, 2, 5, 20]))
        marker = chance.choice(own)
        match chance.randint(0, 8):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:end] + text[start:]
            case 2:
                text = text[:start]
            case 3:
                text = text[:start] + text[start:end][::-1] + text[end:]
            case 4:
                text = text[:start] + marker[: chance.randint(1, len(marker))] + text[start:]
            case 5:
                text += chance.choice(["", "\n", "text "]) + chance.choice(answers)
            case 6:
                text = text[:start] + chance.choice([marker, chance.choice(MARKERS)]) + text[start:]
            case 7:
                repeated = chance.choice([*CHARACTERS, "word ", marker]) * chance.choice([3, 50, 600])
                text = text[:start] + repeated + text[start:]
            case 8:
                text = text[:start] + chance.choice(CHARACTERS) + text[start:]
        text = text[:4_000]
    return text


def chat_parser(name: str, chance: random.Random) -> ChatParser:
    options = AnswerOptions(
        chat=True,
        tools=True,
        tool_choice=chance.choice(["auto", "auto", "auto", "required", "none"]),
        text_arguments=chance.choice([TEXTS, TEXTS, ""]),
        reasoning_open=chance.choice([None, True]),
        inline_reasoning=chance.random() < 0.1,
    )
    return ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options)


def places(chance: random.Random, count: int) -> list[int]:
    return [chance.randrange(10_000) for _ in range(count)]


@pytest.mark.parametrize("name", CORPUS)
def test_any_cut_of_a_damaged_answer_gives_the_whole(name: str) -> None:
    for number in range(ROUNDS):
        chance = random.Random(f"{name} {number}")
        text, options = damaged(name, chance), chance.random()

        def read(pieces: list[str], options: float = options) -> Answer:
            return parse(chat_parser(name, random.Random(options)), pieces)

        whole = read([text])
        assert read(list(text)) == whole
        assert read(cut(text, places(chance, 6))) == whole
        if not CORPUS[name].exact_arguments:
            for _, arguments in whole.calls[:-1]:
                json.loads(arguments)


@pytest.mark.parametrize("name", sorted(set(CORPUS) - UNREAD))
def test_every_letter_of_a_damaged_answer_is_found_again(name: str) -> None:
    for number in range(ROUNDS):
        chance = random.Random(f"{name} {number}")
        pieces = cut(damaged(name, chance), places(chance, len(SENTINELS)))
        marked = "".join(piece + letter for piece, letter in zip(pieces, [*SENTINELS, ""], strict=False))
        parser = chat_parser(name, chance)
        events = parser.feed(marked) + parser.flush()
        answer = gather(events)
        # Families that name the function in a call's id have a letter there twice.
        ids = "".join(event.id for event in events if isinstance(event, ToolCallStart))
        fields = answer.content + answer.reasoning + "".join(part for call in answer.calls for part in call)
        found, wanted = Counter(fields), Counter(marked)
        for letter in SENTINELS:
            assert found[letter] == wanted[letter] or letter in ids, marked


@pytest.mark.parametrize("name", CORPUS)
def test_every_letter_of_text_is_found_again(name: str) -> None:
    for sample in CORPUS[name].samples:
        for field in {sample.content, sample.reasoning, "Paris"} - {""}:
            if sample.answer.count(field) != 1:
                continue
            middle = len(field) // 2
            marked = sample.answer.replace(field, field[:middle] + SENTINELS + field[middle:])
            for end in range(marked.index(SENTINELS) + len(SENTINELS), len(marked) + 1):
                options = AnswerOptions(chat=True, tools=True, text_arguments=TEXTS, reasoning_open=sample.open or None)
                parser = ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options)
                answer = parse(parser, [marked[:end]])
                fields = answer.content + answer.reasoning + "".join(part for call in answer.calls for part in call)
                assert fields.count(SENTINELS) == 1, marked[:end]


def read(name: str, text: str) -> Answer:
    options = AnswerOptions(chat=True, tools=True, text_arguments=TEXTS)
    return parse(ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options), [text])


KIMI_CALL = "<|tool_call_begin|>functions.now:0<|tool_call_argument_begin|>{}<|tool_call_end|>"
KIMI_SECTION = f"<|tool_calls_section_begin|>{KIMI_CALL}<|tool_calls_section_end|>"
NOW, PARIS = ["now", "{}"], ["get_weather", '{"city": "Paris"}']


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        # Both calls have the model's id, which is unique in the answer.
        ("kimi_k2", KIMI_SECTION * 2, Answer("", "", [NOW, NOW])),
        # A call begins before the end of the one before it.
        (
            "qwen3_coder",
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n"
            "<tool_call>\n<function=now>\n</function>\n</tool_call>",
            Answer("", "", [PARIS, NOW]),
        ),
        ("kimi_k2", f"<|tool_call_begin|>functions.now{KIMI_SECTION}", Answer("<|tool_call_begin|>functions.now", "", [NOW])),
        (
            "kimi_k2",
            f"<|tool_calls_section_begin|><|tool_call_begin|>functions.no{KIMI_CALL}",
            Answer("<|tool_calls_section_begin|><|tool_call_begin|>functions.no", "", [NOW]),
        ),
        # Text between the markup.
        ("deepseek_v31", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{} } a } b", Answer("a } b", "", [NOW])),
        # Messages without their markers.
        ("openai", "<|channel|>analysis<|message|>Hm.<|end|>Hello!", Answer("Hello!", "Hm.")),
        ("openai", "to=5 is the answer", Answer("to=5 is the answer")),
        ("openai", "<|start|>assistant " + "word " * 200, Answer("assistant " + "word " * 200)),
    ],
)  # fmt: skip
def test_what_was_found(name: str, text: str, answer: Answer) -> None:
    assert read(name, text) == answer


# Text before the first argument, between a key and its value, and after the arguments.
TEXT_IN_CALLS = {
    "qwen3_coder": "<tool_call>\n<function=get_weather>\n甲\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
    "glm45": "<tool_call>get_weather\n甲<arg_key>city</arg_key>乙<arg_value>Paris</arg_value></tool_call>",
    "deepseek_v32": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n甲'
    '<｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
    '{"city": "Paris"} 甲<|tool_call_end|><|tool_calls_section_end|>',
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_IN_CALLS)
def test_text_in_a_call_comes_after_it(name: str) -> None:
    text = TEXT_IN_CALLS[name]
    answer = read(name, text)
    assert [[function, json.loads(arguments)] for function, arguments in answer.calls] == [
        ["get_weather", {"city": "Paris"}]
    ]
    assert "".join(answer.content.split()) == "".join(letter for letter in text if letter in SENTINELS)
    for end in range(len(text)):
        read(name, text[:end])  # in the order that `gather` checks


def test_reasoning_with_the_beginning_of_a_call_goes_on_at_once() -> None:
    options = AnswerOptions(chat=True, tools=True, text_arguments=TEXTS, reasoning_open=True)
    parser = ChatParser(AnswerFormat("think", tool_parser="qwen3_coder"), options)
    text = "I write <tool_call>\n<function=now>\n to call it."
    assert gather(parser.feed(text)).reasoning == text


# A key without its value or without its end, before another call; the first call's arguments, and the content.
DSML_NOW = '<｜DSML｜invoke name="now"></｜DSML｜invoke></｜DSML｜function_calls>'
M3 = "]<]minimax[>["
INCOMPLETE = [
    ("glm45", "<tool_call>f<arg_key>a</arg_key></tool_call><tool_call>now</tool_call>", {"a": None}, ""),
    ("glm45", "<tool_call>f<arg_key>a</arg_key>\n<tool_call>now</tool_call>", {"a": None}, ""),
    (
        "glm45",
        "<tool_call>f<arg_key>a</arg_key><arg_key>b</arg_key><arg_value>1</arg_value></tool_call><tool_call>now</tool_call>",
        {"a": None, "b": 1},
        "",
    ),
    ("glm45", "<tool_call>f<arg_key>a</tool_call><tool_call>now</tool_call>", {}, "<arg_key>a"),
    (
        "hy3",
        "<tool_calls:opensource><tool_call:opensource>f<tool_sep:opensource><arg_key:opensource>a</arg_key:opensource>"
        "</tool_call:opensource><tool_call:opensource>now<tool_sep:opensource></tool_call:opensource></tool_calls:opensource>",
        {"a": None},
        "",
    ),
    (
        "qwen3_coder",
        "<tool_call><function=f><parameter=a</function></tool_call><tool_call><function=now></function></tool_call>",
        {},
        "<parameter=a",
    ),
    (
        "deepseek_v32",
        f'<｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="a</｜DSML｜invoke>{DSML_NOW}',
        {},
        '<｜DSML｜parameter name="a',
    ),
    (
        "minimax_m3",
        f'{M3}<tool_call>{M3}<invoke name="f">{M3}<a{M3}</invoke>{M3}<invoke name="now">{M3}</invoke>{M3}</tool_call>',
        {},
        f"{M3}<a",
    ),
    # A header that is none, and text before an object.
    (
        "minimax_m2",
        '<minimax:tool_call><invoke name="f"><parameter name="a"x</parameter></invoke><invoke name="now"></invoke></minimax:tool_call>',
        {},
        '<parameter name="a"x</parameter>',
    ),
    ("mistral_v13", '[TOOL_CALLS]f[ARGS][ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]hm {}', {"a": 1}, "hm"),
    ("functionary_v31", '<function=f>>\n{"a": 1}</function><function=now>{}</function>', {"a": 1}, ""),
    (
        "deepseek_v31",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>With this: {\"a\": 1}<｜tool▁call▁end｜>"
        "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        {"a": 1},
        "With this:",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "arguments", "content"), INCOMPLETE)
def test_an_incomplete_argument_does_not_hide_the_next_call(
    name: str, text: str, arguments: dict, content: str
) -> None:
    options = AnswerOptions(chat=True, tools=True)
    for pieces in ([text], list(text)):
        answer = parse(ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options), pieces)
        assert answer.content == content
        assert [[called, json.loads(read)] for called, read in answer.calls] == [["f", arguments], ["now", {}]]


# An answer without its end: the arguments if the model has ended it, and if it was cut.
UNFINISHED = [
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1, {"b": "x', '{"a": [1, {"b": "x"}]}', '{"a": [1, {"b": "x'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1</tool_call>', '{"a": 1}', '{"a": 1'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1,', '{"a": 1,', '{"a": 1,'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1,', '{"a": [1,', '{"a": [1,'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1}}</tool_call>', '{"a": [1}}', '{"a": [1}}'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": tr', '{"a": true}', '{"a": tr'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": -1.', '{"a": -1.0}', '{"a": -1.'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a"', '{"a":null}', '{"a"'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a":', '{"a":null}', '{"a":'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a', '{"a":null}', '{"a'),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "x\\', '{"a": "x\\\\"}', '{"a": "x\\'),
    ("openai", "<|channel|>commentary to=functions.f<|message|>", "{}", ""),
    ("openai", '<|channel|>commentary to=functions.f<|message|>{"a": "x', '{"a": "x"}', '{"a": "x'),
    ("kimi_k2", '<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>', "{}", ""),
    ("kimi_k2", '<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>{"a": "x', '{"a": "x"}', '{"a": "x'),
    ("glm45", "<tool_call>f\n", "{}", ""),
    ("glm45", "<tool_call>f\n<arg_key>a</arg_key>", '{"a": null}', '{"a": '),
    ("kimi_k2", "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>nul", "{}", "nul"),
    ("qwen3_coder", "<function=search>\n<parameter=x<y>\n2\n</parameter>", '{"x<y": 2}', '{"x<y": 2'),
    ("qwen3_coder", "<function=write_file>\n<parameter=text>\nx", '{"text": "x"}', '{"text": "x'),
    ("qwen3_coder", "<function=search>\n<parameter=limit>\n12", '{"limit": 12}', '{"limit": 12'),
    ("qwen3_coder", "<function=search>\n<parameter=filters>\n{'sizes': [4", '{"filters": "{\'sizes\': [4"}', '{"filters": "{\'sizes\': [4'),
    ("qwen3_coder", "<function=search>\n<parameter=filters>\n{'sizes': [4]}", '{"filters": {"sizes": [4]}}', '{"filters": {"sizes": [4]}'),
    ("qwen3_coder", '<function=search>\n<parameter=filters>\n{"sizes": [4', '{"filters": {"sizes": [4]}}', '{"filters": {"sizes": [4'),
    ("qwen3_coder", "<function=configure>\n<parameter=mode>\nfast\n</parameter>\n<parameter=ti", '{"mode": "fast", "ti":null}', '{"mode": "fast", "ti'),
    ("minicpm5", '<function name="write_file"><param name="text">{"a', '{"text": "{\\"a"}', '{"text": "{\\"a'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "ended", "unfinished"), UNFINISHED)
def test_arguments_without_their_end(name: str, text: str, ended: str, unfinished: str) -> None:
    def arguments(read: Callable[[ChatParser, list[str]], Answer], pieces: list[str]) -> str:
        options = AnswerOptions(chat=True, tools=True, text_arguments=TEXTS if name != "hermes" else "")
        answer = read(ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options), pieces)
        assert answer.content == ""
        [[_, read_arguments]] = answer.calls
        return read_arguments

    for pieces in ([text], list(text)):
        assert arguments(parse, pieces) == ended
        assert arguments(parse_cut, pieces) == unfinished


def test_what_an_element_holds_is_not_read_again() -> None:
    """Python could not write halves of surrogate pairs and numbers without a float again."""
    value = f'{M3}<a>"\\ud800"{M3}</a>{M3}<b>1e999{M3}</b>{M3}<c>{M3}<item>12345678901234567890.123{M3}</item>{M3}</c>'
    text = f'{M3}<tool_call>{M3}<invoke name="search">{M3}<filters>{value}{M3}</filters>{M3}</invoke>{M3}</tool_call>'
    filters = '{"a": "\\ud800", "b": 1e999, "c": [12345678901234567890.123]}'
    assert read("minimax_m3", text).calls == [["search", f'{{"filters": {filters}}}']]


NOTHING = ["null", " null ", '""', ""]


@pytest.mark.parametrize("nothing", NOTHING)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("hermes", '<tool_call>{"name": "now", "arguments": %s}</tool_call>'),
        ("hermes", '<tool_call>{"arguments": %s, "name": "now"}</tool_call>'),
        ("llama3_json", '{"name": "now", "parameters": %s}'),
        (
            "kimi_k2",
            "<|tool_calls_section_begin|><|tool_call_begin|>now<|tool_call_argument_begin|>%s<|tool_call_end|>",
        ),
        ("mistral_v13", "[TOOL_CALLS]now[ARGS]%s"),
        ("openai", "<|channel|>commentary to=functions.now<|message|>%s<|call|>"),
    ],
)
def test_no_arguments_are_an_empty_object(name: str, form: str, nothing: str) -> None:
    if not nothing and name in ("hermes", "llama3_json"):
        return  # is not JSON
    text = form % nothing
    options = AnswerOptions(chat=True, tools=True, text_arguments=TEXTS)
    for pieces in ([text], list(text)):
        parser = ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options)
        assert parse(parser, pieces) == Answer("", "", [NOW])
