# SPDX-License-Identifier: Apache-2.0
"""The benchmark's prompts: of the requested length, alike for every endpoint, and new to a prefix cache."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from preprocessing.images.decode import ImageLimits, decode_image
from scripts.bench import workloads
from scripts.bench.pictures import SIZE, photo
from scripts.bench.prompts import PromptMaker
from scripts.bench.questions import Question
from scripts.bench.workloads import WORKLOADS, Workload, chosen
from scripts.split.splitter import split_checkpoint
from tests.support.scripted import CONFIGS
from tests.support.vlm_checkpoints import make_internvl

CONTEXT = 8192


def checkpoint(family: str, tokenizer_dir: Path, folder: Path) -> Path:
    shutil.copytree(tokenizer_dir, folder)
    (folder / "config.json").write_text(json.dumps(CONFIGS[family]))
    return folder


@pytest.fixture(scope="module")
def maker(qwen3_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptMaker:
    return PromptMaker(checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path_factory.mktemp("qwen3") / "c"), CONTEXT)


def asked(maker: PromptMaker, workload: Workload, salt: int = 0, **changes: Any) -> list[Question]:
    """The measured questions of all streams, one stream after the other."""
    settings = {"count": 2, "requests": 4, "warmup": 1, "number": 0} | changes
    made = workloads.streams(workload, maker, salt=salt, **settings)
    assert [len(stream.warmup) for stream in made] == [settings["warmup"]] * settings["count"]
    return [question for stream in made for question in stream.measured]


@pytest.mark.parametrize("name", ["chat", "summary", "mixed"])
def test_prompts_have_the_requested_length(maker: PromptMaker, name: str) -> None:
    workload = WORKLOADS[name]
    questions = asked(maker, workload, requests=8)
    assert {(len(question.input_ids), question.output_tokens) for question in questions} == set(workload.lengths)
    for question in questions:
        # Endpoints that take ids get what the others make of the messages.
        assert tuple(maker.build(question.messages).input_ids) == question.input_ids


def test_a_prompt_of_a_whole_document(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    maker = PromptMaker(checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path / "c"), 40_000)
    workloads.check(WORKLOADS["document"], maker)
    (question,) = asked(maker, WORKLOADS["document"], count=1, requests=1)
    assert len(question.input_ids) == 32_000


def test_another_familys_tokenizer(gemma3_tokenizer_dir: Path, tmp_path: Path) -> None:
    """Sentencepiece, and a template that has a place for the system prompt."""
    maker = PromptMaker(checkpoint("gemma3", gemma3_tokenizer_dir, tmp_path / "c"), CONTEXT)
    assert {len(question.input_ids) for question in asked(maker, WORKLOADS["summary"])} == {1200}
    assert len(maker.words) > 1000


def test_questions_differ_and_are_made_the_same_again(maker: PromptMaker) -> None:
    questions = asked(maker, WORKLOADS["chat"])
    assert len({question.input_ids for question in questions}) == len(questions)
    assert asked(maker, WORKLOADS["chat"]) == questions
    assert not {question.input_ids for question in asked(maker, WORKLOADS["chat"], number=1)} & {
        question.input_ids for question in questions
    }


def test_an_endpoint_finds_nothing_of_another_in_the_prefix_cache(maker: PromptMaker) -> None:
    for one, other in zip(asked(maker, WORKLOADS["summary"]), asked(maker, WORKLOADS["summary"], salt=7), strict=True):
        pairs = enumerate(zip(one.input_ids, other.input_ids, strict=True))
        # Only the template's beginning is the same, which is shorter than a block of the cache.
        assert next(index for index, (mine, its) in pairs if mine != its) < 16
        words, others = (question.messages[0]["content"].split() for question in (one, other))
        # Then the same words, fewer if the salt's words took more tokens.
        assert words[:3] != others[:3]
        shorter = min(len(words), len(others))
        assert words[3:shorter] == others[3:shorter]
        assert abs(len(words) - len(others)) <= 3


def test_turns_grow_by_the_answer_and_a_question(maker: PromptMaker) -> None:
    workload = WORKLOADS["turns"]
    questions = asked(maker, workload, count=1, requests=8, warmup=4)
    assert [len(question.input_ids) for question in questions] == [512, 768, 1024, 1280] * 2
    for earlier, later in pairwise(questions[:4]):
        assert later.messages[: len(earlier.messages)] == earlier.messages
        assert [message["role"] for message in later.messages[-2:]] == ["assistant", "user"]
        shared = len(earlier.input_ids)
        # All but the template's beginning of the answer is the prefix of the next turn.
        assert later.input_ids[: shared - 8] == earlier.input_ids[: shared - 8]
    assert workload.longest == 1280 + 128


def test_other_lengths() -> None:
    assert chosen("chat", 40, None).lengths == ((40, 256),)
    assert chosen("chat", None, None, 0.5).temperature == 0.5
    assert chosen("summary", None, 7).lengths == ((1200, 7),)
    assert chosen("turns", 600, 64).longest == 600 + 64 + 3 * 256
    assert chosen("image", None, 9).lengths == ((0, 9),)
    with pytest.raises(ValueError, match="several lengths of its own"):
        chosen("mixed", None, 5)
    with pytest.raises(ValueError, match="no --prompt-tokens"):
        chosen("image", 5, None)


def test_what_the_model_cannot_take_is_refused(maker: PromptMaker) -> None:
    with pytest.raises(ValueError, match="needs a context of 32128 tokens, and there are 8192"):
        workloads.check(WORKLOADS["document"], maker)
    with pytest.raises(ValueError, match="takes no pictures"):
        workloads.check(WORKLOADS["image"], maker)
    with pytest.raises(ValueError, match=r"no prompt of exactly 3 tokens .* shortest has about \d+"):
        asked(maker, Workload("", ((3, 5),)))


def test_pictures_of_thirteen_tiles(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    whole = make_internvl(tmp_path / "whole", qwen3_tokenizer_dir).path
    (tmp_path / "split").mkdir()
    split_checkpoint(whole, tmp_path / "split")
    vocab_size = Tokenizer.from_file(str(tmp_path / "split" / "tokenizer.json")).get_vocab_size()
    maker = PromptMaker(tmp_path / "split", 2048)
    workloads.check(WORKLOADS["image"], maker)
    questions = asked(maker, WORKLOADS["image"])
    assert len({question.images for question in questions}) == len(questions)
    for question in questions:
        # Four rows a tile in this checkpoint, ids past the vocabulary.
        assert len([one for one in question.input_ids if one >= vocab_size]) == 13 * 4
        assert (len(question.images), question.output_tokens) == (1, 50)
    one_tile = PromptMaker(tmp_path / "split", 2048, max_tiles_per_image=1)
    assert len(asked(one_tile, WORKLOADS["image"])[0].input_ids) < len(questions[0].input_ids)


def test_a_picture_is_a_photo_of_its_own() -> None:
    assert photo(1) == photo(1) != photo(2)
    assert decode_image(photo(1), ImageLimits()).size == SIZE
