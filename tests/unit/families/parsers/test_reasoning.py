# SPDX-License-Identifier: Apache-2.0
import pytest

from families.parsers.reasoning import ReasoningParser
from tests.support.answers import THINK_TAGS, Answer, parse, parse_both_ways


def read(text: str, *, starts_open: bool = False, verbatim: bool = False) -> Answer:
    return parse_both_ways(lambda: ReasoningParser(THINK_TAGS, starts_open=starts_open, verbatim=verbatim), text)


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
    assert read(text) == Answer(content, reasoning)


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
    assert read(text, starts_open=True) == Answer(content, reasoning)


@pytest.mark.parametrize("text", [" <think>\n\na\n</think>\n\nb\n", "<think>\na\n", "<think>", "a</think>", "\n\n"])
@pytest.mark.parametrize("starts_open", [False, True])
def test_verbatim_keeps_every_character(text: str, starts_open: bool) -> None:
    answer = read(text, starts_open=starts_open, verbatim=True)
    assert answer.reasoning + answer.content == text


def test_long_runs_of_line_ends_are_dropped() -> None:
    parser = ReasoningParser(THINK_TAGS)
    text = "<think>" + "\n" * 100_000 + "x" * 100_000 + "\n" * 100_000 + "</think>"
    assert len(parse(parser, text).reasoning) == 100_000
