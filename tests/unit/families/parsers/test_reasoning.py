# SPDX-License-Identifier: Apache-2.0
import pytest

from common.answer_options import AnswerOptions
from families.parsers import AnswerFormat, ChatParser
from families.parsers.reasoning import ReasoningParser
from tests.support.answers import THINK, Answer, parse


def both_ways(text: str, *, starts_open: bool = False, verbatim: bool = False) -> Answer:
    """The answer of the text as a whole, which must be that of its characters."""
    whole = parse(ReasoningParser(THINK, starts_open=starts_open, verbatim=verbatim), [text])
    assert parse(ReasoningParser(THINK, starts_open=starts_open, verbatim=verbatim), text) == whole
    return whole


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("<think>\nreason\n</think>\n\nanswer", "reason", "answer"),
        ("<think>reason</think>answer", "reason", "answer"),
        ("\n <think>\r\nreason\r\n</think>\r\nanswer\n", "reason", "answer\n"),
        ("<think>\n\n</think>\n\nanswer", "", "answer"),
        ("<think>\n one\n\n two \n</think> answer", " one\n\n two ", " answer"),
        ("<think>好的，用户问\n</think>\n\n你好！😊", "好的，用户问", "你好！😊"),
        ("<think>a < b </thin </think>c", "a < b </thin ", "c"),
        ("<think>a</think>b</think>c <think>d</think>", "a", "b</think>c <think>d</think>"),
        ("<think>\nunfinished\n", "unfinished\n", ""),
        ("<think>unfinished</thi", "unfinished</thi", ""),
        ("<think>", "", ""),
        ("<thin", "", "<thin"),
        ("  \n", "", "  \n"),
        (" <thin air", "", " <thin air"),
        ("The tag <think> is text", "", "The tag <think> is text"),
        ("a</think>b", "", "a</think>b"),
        ("", "", ""),
    ],
)
def test_reasoning_at_the_beginning(text: str, reasoning: str, content: str) -> None:
    assert both_ways(text) == Answer(content, reasoning)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("\nreason\n</think>\n\nanswer", "reason", "answer"),
        ("<think>\nreason</think>answer", "reason", "answer"),
        ("</think>answer", "", "answer"),
        ("unfinished <", "unfinished <", ""),
        ("  <th", "  <th", ""),
        (" indented</think>", " indented", ""),
    ],
)
def test_reasoning_that_the_prompt_opened(text: str, reasoning: str, content: str) -> None:
    assert both_ways(text, starts_open=True) == Answer(content, reasoning)


@pytest.mark.parametrize("text", [" <think>\n\na\n</think>\n\nb\n", "<think>\na\n", "<think>", "a</think>", "\n\n"])
@pytest.mark.parametrize("starts_open", [False, True])
def test_verbatim_keeps_every_character(text: str, starts_open: bool) -> None:
    answer = both_ways(text, starts_open=starts_open, verbatim=True)
    assert answer.reasoning + answer.content == text


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


def test_inline_reasoning_is_content_and_its_tool_markup_text() -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    text = f"<think>\n{call}\n</think>\n\n"
    inline = chat(text + call, starts_open=False, tools=True, inline_reasoning=True)
    assert inline == Answer(text.rstrip(), "", [["f", "{}"]])
    apart = chat(text + call, starts_open=False, tools=True)
    assert apart == Answer("", call, [["f", "{}"]])


def test_long_runs_of_line_ends_are_dropped() -> None:
    parser = ReasoningParser(THINK)
    text = "<think>" + "\n" * 100_000 + "x" * 100_000 + "\n" * 100_000 + "</think>"
    assert len(parse(parser, text).reasoning) == 100_000
