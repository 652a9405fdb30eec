# SPDX-License-Identifier: Apache-2.0
"""The benchmark of reading answers: what it reads, and its table."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from families.parsers import TOOL_FORMATS, ChatParser
from scripts.bench import answers
from tests.support.answers import Answer, parse


def read(name: str, text: str) -> Answer:
    return parse(ChatParser(answers.answer_format(name), answers.OPTIONS), [text])


def test_every_format_is_measured() -> None:
    assert set(answers.CALLS) == set(TOOL_FORMATS)


@pytest.mark.parametrize("name", sorted(answers.CALLS))
def test_the_answers_are_what_they_are_called(name: str) -> None:
    words = answers.WORDS * 3
    assert read(name, answers.answer(name, "text", 3)) == Answer(words)
    assert read(name, answers.answer(name, "reasoning", 3)) == Answer("", words)
    [(function, arguments)] = read(name, answers.answer(name, "argument", 3)).calls
    assert (function, json.loads(arguments)) == ("f", {"a": words})
    assert len(read(name, answers.answer(name, "calls", 3)).calls) == 3


@pytest.mark.parametrize("shape", answers.SHAPES)
def test_the_answers_have_about_the_length(shape: str, qwen3: Tokenizer) -> None:
    assert len(answers.answer_ids(qwen3, "hermes", shape, 1000)) == pytest.approx(1000, abs=60)


def test_the_command(tmp_path: Path, qwen3_tokenizer_dir: Path, capsys: Any) -> None:
    line = ["--tokenizer", str(qwen3_tokenizer_dir), "--formats", "hermes", "--lengths", "60", "120", "--rounds", "1"]
    assert answers.measure(answers.parse([*line, "--out", str(tmp_path)])) == 0
    assert "| hermes | " in capsys.readouterr().out
    assert set(json.loads((tmp_path / "answers.json").read_text())["microseconds"]["hermes"]) == set(answers.SHAPES)


def test_the_table() -> None:
    text = answers.table({"hermes": {"text": [4.0, 5.0], "calls": [4.0, 3.0]}})
    assert text.splitlines()[-1] == "| hermes | 4.0 / 5.0 | 4.0 / 3.0 | **1.25** |"
