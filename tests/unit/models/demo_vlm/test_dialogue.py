# SPDX-License-Identifier: Apache-2.0
"""The demo model is trained on the same ids that the server sends, and its answers are scored correctly."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from models.demo_vlm.layout import TOKENS_PER_TILE, VISION_CONFIG
from models.demo_vlm.naming import rename_image_tokens
from models.demo_vlm.training import evaluate
from models.demo_vlm.training.dialogue import Encoder, Turn
from models.demo_vlm.training.evaluate import COLUMNS, Case, Result, matches
from models.demo_vlm.training.generate import Prompt
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.internvl import InternVLImages
from preprocessing.prompt import PromptBuilder, PromptRequest
from tests.support.demo_checkpoint import make_base


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def encoder(base: Path) -> Encoder:
    return Encoder(base)


@pytest.fixture(scope="module")
def builder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> PromptBuilder:
    """The server's prompt builder, with the demo model's tokenizer and vision config."""
    folder = tmp_path_factory.mktemp("served")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_text((base / name).read_text())
    (folder / "tokenizer.json").write_text(
        json.dumps(rename_image_tokens(json.loads((base / "tokenizer.json").read_text())))
    )
    (folder / "vision").mkdir()
    (folder / "vision" / "config.json").write_text(json.dumps(VISION_CONFIG))
    checkpoint, tokenizer = Checkpoint.load(folder), ChatTokenizer.load(folder)
    images = InternVLImages(checkpoint, tokenizer, MediaOptions(limits=ImageLimits()), VISION_CONFIG)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint), images=images)


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("sizes", "tiles"),
    [([], []), ([(224, 224)], [1]), ([(600, 600)], [5]), ([(300, 150), (200, 200)], [3, 1])],
)
def test_the_ids_are_those_that_the_server_sends(
    builder: PromptBuilder, encoder: Encoder, sizes: list[tuple[int, int]], tiles: list[int]
) -> None:
    parts: list[dict[str, object]] = [{"type": "image_url", "image_url": {"url": "data:,"}} for _ in sizes]
    asked = [{"role": "user", "content": [*parts, {"type": "text", "text": "What differs?"}]}]
    later = [{"role": "assistant", "content": "The color."}, {"role": "user", "content": "Which?"}]
    messages = json.dumps({"messages": asked + later})
    sent = builder.build(PromptRequest(messages=messages, images=tuple(png(*size) for size in sizes)))
    ids, _ = encoder.encode([Turn("What differs?", "The color."), Turn("Which?")], tiles)
    vocabulary = builder.checkpoint.vocab_size
    assert [encoder.image_id if item >= vocabulary else item for item in sent.input_ids] == ids
    rows = [item - vocabulary for item in sent.input_ids if item >= vocabulary]
    assert rows == list(range(sum(tiles) * TOKENS_PER_TILE))
    assert [len(picture.pixels) for picture in sent.pictures] == tiles


def test_only_the_answers_are_targets(encoder: Encoder) -> None:
    ids, written = encoder.encode([Turn("Color?", "It is red."), Turn("assistant\n?", "No.")], [2])
    text = encoder.tokenizer.decode([item for item, own in zip(ids, written, strict=True) if own], False)
    assert text == "It is red.<|im_end|>No.<|im_end|>"


def test_renaming_keeps_every_id(base: Path) -> None:
    before = json.loads((base / "tokenizer.json").read_text())
    after = rename_image_tokens(before)
    assert sorted(after["model"]["vocab"].values()) == sorted(before["model"]["vocab"].values())
    assert {"<img>", "</img>", "<IMG_CONTEXT>"} <= after["model"]["vocab"].keys()
    assert "<reponame>" not in json.dumps(after)


def test_scoring_ignores_case_and_punctuation_and_nothing_else() -> None:
    assert matches('the text says "stop"', 'The text says "STOP".')
    assert matches(" Red", "red")
    assert not matches("The circle is red.", "The circle is blue.")
    assert not matches("There are two circles.", "There are two red circles.")
    assert not matches("", "red")


def test_the_table_counts_by_skill_and_part(encoder: Encoder) -> None:
    def result(skill: str, column: str, answer: str) -> Result:
        prompt = Prompt([], evaluate.np.empty(0))
        return Result(Case(skill, column, prompt, "?", "red"), answer)

    results = [
        result("color", COLUMNS[0], "red"),
        result("color", COLUMNS[0], "blue"),
        result("shape", COLUMNS[2], "Red."),
    ]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in evaluate.table(results).splitlines()]
    assert rows[0] == ["skill", *COLUMNS, "all"]
    assert rows[2:] == [
        ["color", "50 % of 2", "", "", "50 % of 2"],
        ["shape", "", "", "100 % of 1", "100 % of 1"],
        ["**all**", "50 % of 2", "", "100 % of 1", "67 % of 3"],
    ]
    assert "'blue', not 'red'" in evaluate.mistakes(results, 5)
