# SPDX-License-Identifier: Apache-2.0
"""A tokenizer's description of its answers chooses the formats in which they are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.answer_options import AnswerOptions
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.formats import Formats
from families.parsers import REASONING_FORMATS, TOOL_FORMATS, AnswerFormat, ChatParser
from families.response_template import described, written_call, written_thought
from tests.support.answers import Answer, parse
from tests.support.chats import checkpoint, tiny

NOTHING = Formats(None, None, None)
# JSON between tags, with the tags of reasoning.
TAGS = {
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "thinking": {"open": "<think>", "close": "</think>"},
        "tool_calls": {
            "open_pattern": r"\s*<tool_call>",
            "close": "</tool_call>",
            "repeats": True,
            "content": "json",
            "transform": {"type": "function", "function": "{content}"},
        },
        "content": {},
    },
}
# A name in the markup, and parameters with tags of their own.
PARAMETERS = {
    "start_anchor": "<|assistant|>",
    "fields": {
        "reasoning_content": {"open": "<seed:think>", "close": "</seed:think>"},
        "tool_calls": {
            "open_pattern": r"\s*<seed:tool_call>\s*<function=(?P<name>[^>\n]+)>",
            "close_pattern": r"</function>\s*</seed:tool_call>",
            "repeats": True,
            "content": "xml-inline",
            "content_args": {"tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"},
            "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
        },
        "content": {},
    },
}


@pytest.mark.parametrize(
    ("template", "reasoning", "tools"), [(TAGS, "think", "hermes"), (PARAMETERS, "seed", "seed_oss")]
)
def test_the_formats_described(template: dict[str, Any], reasoning: str, tools: str) -> None:
    assert described(json.dumps(template), NOTHING) == Formats(None, reasoning, tools)
    assert described(json.dumps(template), Formats("x", "openai", "openai")) == Formats("x", reasoning, tools)


def test_what_cannot_be_told_apart_is_as_the_rules_say() -> None:
    assert described(json.dumps(TAGS), Formats("granite", "granite", "mistral")).reasoning == "granite"


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"fields": {}},
        {"start_anchor": "a", "fields": {"content": {}}},
        {"start_anchor": "a", "fields": {"tool_calls": {"open": "<f>", "close": "</f>", "content": "json"}}},
        {"start_anchor": "a", "fields": {"tool_calls": {"open_pattern": "("}}},
        {"version": 99},
    ],
)
def test_what_describes_nothing_known_leaves_it_to_the_rules(template: dict[str, Any]) -> None:
    rules = Formats("x", "think", "hermes")
    assert described(json.dumps(template), rules) == rules


def test_the_answers_written_for_it_are_read_by_the_formats_themselves() -> None:
    for name in TOOL_FORMATS:
        if answer := written_call(name):
            parser = ChatParser(
                AnswerFormat("openai" if name == "openai" else None, tool_parser=name),
                AnswerOptions(chat=True, tools=True, text_arguments='{"probe":["key"]}'),
            )
            found = parse(parser, [answer])
            calls = [[function, json.loads(arguments)] for function, arguments in found.calls]
            assert (name, found.content, calls) == (name, "", [["probe", {"key": "some text"}]])
    for name, form in REASONING_FORMATS.items():
        found = parse(ChatParser(AnswerFormat(name), AnswerOptions(chat=True)), [written_thought(form)])
        assert (name, found.reasoning.strip()) == (name, "a thought")
        assert found == Answer("an answer", found.reasoning, []), name


def test_it_comes_before_the_rules(tmp_path: Path) -> None:
    fast = tiny("<eos>", template="{{ tools }} <tool_call> <think></think>")._tokenizer
    fast.response_template = PARAMETERS
    fast.save_pretrained(tmp_path)
    tokenizer = ChatTokenizer.load(tmp_path)
    found = find_styler(checkpoint("other")).answer_format(tokenizer)
    assert (found.reasoning, found.tool_parser) == ("seed", "seed_oss")
    given = find_styler(checkpoint("other"), tool_parser="glm45").answer_format(tokenizer)
    assert (given.reasoning, given.tool_parser) == ("seed", "glm45")
