# SPDX-License-Identifier: Apache-2.0
"""Every format of tool calls against its corpus of answers: whole, by character, and in pieces of every size."""

import json
import random
import re
from pathlib import Path

import pytest

from common.answer_options import AnswerOptions
from common.chat.text_arguments import text_arguments
from families.parsers import TOOL_FORMATS, AnswerFormat, ChatParser
from families.parsers.formats import (
    REASONING_FORMATS,
    REASONING_PARSER_NAMES,
    TOOL_PARSER_NAMES,
    resolve_reasoning_format,
    resolve_tool_format,
)
from tests.support.answer_corpus import CORPUS, TOOLS, Sample
from tests.support.answers import Answer, cut, parse, parse_cut

SAMPLES = [pytest.param(name, sample, id=f"{name}-{sample.name}") for name in CORPUS for sample in CORPUS[name].samples]


def chat_parser(name: str, sample: Sample) -> ChatParser:
    options = AnswerOptions(chat=True, tools=True, text_arguments=text_arguments(TOOLS), reasoning_open=sample.open)
    return ChatParser(AnswerFormat(CORPUS[name].reasoning, tool_parser=name), options)


def assert_reads(name: str, sample: Sample, pieces: list[str]) -> None:
    answer = (parse_cut if sample.name == "cut in the arguments" else parse)(chat_parser(name, sample), pieces)
    calls = [list(call) for call in sample.calls]
    if not CORPUS[name].exact_arguments:
        answer.calls = [[function, load(arguments)] for function, arguments in answer.calls]
        calls = [[function, load(arguments)] for function, arguments in calls]
    assert answer == Answer(sample.content, sample.reasoning, calls)


def load(arguments: str) -> object:
    """The value of arguments, or their text if they are cut."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_answers_are_read_in_every_cut(name: str, sample: Sample) -> None:
    assert_reads(name, sample, [sample.answer])
    assert_reads(name, sample, list(sample.answer))
    for size in (2, 3, 5, 8, 13, 40):
        assert_reads(name, sample, [sample.answer[at : at + size] for at in range(0, len(sample.answer), size)])
    places = random.Random(sample.answer)
    for _ in range(20):
        assert_reads(name, sample, cut(sample.answer, [places.randrange(10_000) for _ in range(6)]))


# Ends of arguments to which nothing can be added that the model may have meant; the last is half a special token.
OPEN_ENDED = re.compile(r",\s*$|\\u[0-9a-fA-F]{0,3}$|\}<\|?\w*$")


@pytest.mark.parametrize(("name", "sample"), SAMPLES)
def test_arguments_of_an_answer_that_ends_anywhere_are_json(name: str, sample: Sample) -> None:
    for end in range(len(sample.name) % 3, len(sample.answer), 3):
        answer = parse(chat_parser(name, sample), [sample.answer[:end]])
        unfinished = parse_cut(chat_parser(name, sample), [sample.answer[:end]])
        for (function, arguments), called in zip(answer.calls, unfinished.calls, strict=True):
            assert called[0] == function and (arguments.startswith(called[1]) or arguments == "{}")
            if not OPEN_ENDED.search(called[1]):
                json.loads(arguments)


# What families have as one special token, which the text only has if it is in a marker.
TOKENS = re.compile(r"<[|｜][^<>|｜]+[|｜]?>|<[^<>|｜]+[|｜]>|\[/?[A-Z_]{4,}\]")


@pytest.mark.parametrize("name", CORPUS)
def test_markers_hold_all_tokens_of_the_markup(name: str) -> None:
    # Answers that are calls as a whole are read without the tags.
    dropped = getattr(TOOL_FORMATS[name].markup, "dropped", ())
    markers = (*AnswerFormat(CORPUS[name].reasoning, tool_parser=name).markers, *dropped)
    for sample in CORPUS[name].samples:
        fields = sample.content + sample.reasoning + "".join(arguments for _, arguments in sample.calls)
        tokens = {token for token in TOKENS.findall(sample.answer) if token not in fields}
        assert not {token for token in tokens if not any(token in marker for marker in markers)}


def test_every_format_has_a_corpus() -> None:
    assert set(TOOL_FORMATS) - {"gemma"} <= set(CORPUS)


def test_names_of_vllm_s_options() -> None:
    for names, resolve, table in (
        (TOOL_PARSER_NAMES, resolve_tool_format, TOOL_FORMATS),
        (REASONING_PARSER_NAMES, resolve_reasoning_format, REASONING_FORMATS),
    ):
        assert not set(names) & set(table), "a name is in both tables"
        assert {resolve(name) for name in [*names, *table]} <= set(table)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"unknown .* 'guess'; known: .*, "):
            resolve("guess")
    with pytest.raises(ValueError, match="known"):
        AnswerFormat(tool_parser="guess")
    with pytest.raises(ValueError, match="known"):
        AnswerFormat("guess")


def test_the_other_names_are_vllm_s() -> None:
    """A name that means one format there must not mean another here."""
    vllm = pytest.importorskip("vllm")
    folder = Path(vllm.__file__).parent
    for names, file in ((TOOL_PARSER_NAMES, "tool_parsers"), (REASONING_PARSER_NAMES, "reasoning")):
        known = set(re.findall(r'^    "(\w+)": \(', (folder / file / "__init__.py").read_text(), re.MULTILINE))
        # vLLM's name of MiniMax M1's calls before 0.32.
        assert set(names) - {"minimax"} <= known
