# SPDX-License-Identifier: Apache-2.0
import pytest

from common.answer_options import AnswerOptions
from families.parsers import TOOL_FORMATS, AnswerFormat, ChatParser
from families.parsers.chat_parser import _Trial
from tests.support.answers import THINK, Answer, parse

CALL = '{"name": "f", "parameters": {"city":  "Boston, MA", "n": 1.50}}'


def chat(text: str, *, starts_open: bool = True, **options: object) -> Answer:
    answer_format = AnswerFormat(THINK, reasoning_starts_open=starts_open, tool_parser="hermes")
    return parse(ChatParser(answer_format, AnswerOptions(chat=True, **options)), [text])  # type: ignore[arg-type]


def test_thinking_off_does_not_start_open() -> None:
    assert chat("answer") == Answer("", "answer")
    assert chat("answer", enable_thinking=True) == Answer("", "answer")
    assert chat("answer", enable_thinking=False) == Answer("answer")
    assert chat("<think>\n\n</think>\n\nanswer", enable_thinking=False) == Answer("answer")


def test_thinking_default_is_the_familys() -> None:
    answer_format = AnswerFormat(THINK, reasoning_starts_open=True, thinking_default=False)
    assert parse(ChatParser(answer_format, AnswerOptions(chat=True)), ["answer"]) == Answer("answer")


def test_the_end_of_the_prompt_overrides_the_family() -> None:
    assert chat("hm</think>\n\nanswer", starts_open=False, reasoning_open=True) == Answer("answer", "hm")
    assert chat("answer", reasoning_open=False) == Answer("answer")
    assert chat("answer", reasoning_open=False, enable_thinking=True) == Answer("answer")


def test_inline_reasoning_is_content_and_its_tool_markup_text() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    text = f"<think>\n{call}\n</think>\n\n"
    inline = chat(text + call, starts_open=False, tools=True, inline_reasoning=True)
    assert inline == Answer(text.rstrip(), "", [["f", "{}"]])
    apart = chat(text + call, starts_open=False, tools=True)
    assert apart == Answer("", call, [["f", "{}"]])


def test_a_call_ends_reasoning_that_the_model_does_not_close() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    known = {"tools": True, "text_arguments": '{"f": []}'}
    assert chat(f"hm\n{call}\n{call}", **known) == Answer("", "hm", [["f", "{}"], ["f", "{}"]])
    # The model goes on thinking, or closes the block after all: it was no call.
    assert chat(f"hm {call} no", **known) == Answer("", f"hm {call} no")
    assert chat(f"hm {call}\n</think>\n\nyes {call}", **known) == Answer("yes", f"hm {call}", [["f", "{}"]])
    other = call.replace('"f"', '"g"')
    assert chat(f"hm {other}", **known) == Answer("", f"hm {other}")
    assert chat("hm <tool_call> and <tool_call>", **known) == Answer("", "hm <tool_call> and <tool_call>")


@pytest.mark.parametrize("cut", [1, 1000, 1_000_000])
def test_reasoning_full_of_beginnings_of_calls_is_read_a_bounded_number_of_times(
    cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    feed = _Trial.feed

    def count(trial: _Trial, text: str) -> None:
        nonlocal read
        read += len(text)
        feed(trial, text)

    monkeypatch.setattr(_Trial, "feed", count)
    for name in ("hermes", "lfm2", "solar"):
        markup = TOOL_FORMATS[name].markup
        assert markup
        text = "<think>" + markup.triggers[0] * 300
        answer_format = AnswerFormat(THINK, tool_parser=name)
        parser = ChatParser(answer_format, AnswerOptions(chat=True, tools=True, text_arguments='{"f": []}'))
        read = 0
        assert parse(parser, [text[at : at + cut] for at in range(0, len(text), cut)]) == Answer("", text[7:])
        assert read < 60 * len(text)


@pytest.mark.parametrize("name", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("options", [{"tools": False}, {"tools": True, "tool_choice": "none"}])
def test_without_tools_markup_is_text(name: str, options: dict[str, object]) -> None:
    text = f"<tool_call>{CALL}</tool_call>{CALL}```json\n{CALL}\n```"
    parser = ChatParser(AnswerFormat(tool_parser=name), AnswerOptions(chat=True, **options))  # type: ignore[arg-type]
    assert parse(parser, text) == Answer(text)
