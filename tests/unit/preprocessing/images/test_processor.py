# SPDX-License-Identifier: Apache-2.0
"""Prompts with pictures of models whose own processor runs in `preprocessing`, compared with transformers' processor."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

from common.checkpoint import Checkpoint
from common.shared_bytes import joined
from common.tokenizer import ChatTokenizer
from engines.vllm.features import unpack
from families.detection import find_styler
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.processor import ProcessorImages
from preprocessing.images.registry import find_images
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest
from python_backend.config import ModelParameters
from tests.support.image_prompts import OPTIONS, image, png, refused, request, user
from tests.support.tiny_vlms import make_tiny_vlm
from tests.support.videos import video

PAD, PLACE = "<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>"
SQUARE, WIDE = (90, 90), (200, 60)
ENGINE = json.dumps({"dtype": "float32", "limit_mm_per_prompt": {"image": 3, "video": 1}})


def make_builder(folder: Path, options: MediaOptions = OPTIONS, max_model_len: int = 2048) -> PromptBuilder:
    checkpoint, tokenizer = Checkpoint.load(folder), ChatTokenizer.load(folder)
    parameters = ModelParameters("preprocessing", {"engine": "vllm", "engine_options": ENGINE})
    images = find_images(checkpoint, tokenizer, options, parameters)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint), max_model_len, images)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_vlm("qwen2_5_vl", tmp_path_factory.mktemp("vlm") / "qwen2_5_vl")


@pytest.fixture(scope="module")
def builder(folder: Path) -> PromptBuilder:
    return make_builder(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


def ids_of_transformers(reference: Any, prompt: str, *sizes: tuple[int, int]) -> list[int]:
    files = [Image.open(io.BytesIO(png(size, seed))).convert("RGB") for seed, size in enumerate(sizes)]
    ids: list[int] = reference(text=prompt, images=files or None)["input_ids"][0]
    return ids


def hashes(built: EngineInput) -> list[str]:
    assert built.features is not None
    found: list[str] = unpack(torch.from_numpy(joined(built.features)), built.input_ids)["mm_hashes"]["image"]
    return found


def chatml(*turns: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("messages", "sizes", "turns"),
    [
        ([user(image(), "What?")], [SQUARE], [("user", f"{PLACE}What?")]),
        ([user("One", image(), "two", image(), "?")], [SQUARE, WIDE], [("user", f"One{PLACE}two{PLACE}?")]),
        (
            [user(image(), "What?"), {"role": "assistant", "content": "A fox."}, user(image(), "And?")],
            [SQUARE, WIDE],
            [("user", f"{PLACE}What?"), ("assistant", "A fox."), ("user", f"{PLACE}And?")],
        ),
        (
            [{"role": "system", "content": "Be brief."}, user(image())],
            [WIDE],
            [("system", "Be brief."), ("user", PLACE)],
        ),
        ([user("Hi")], [], [("user", "Hi")]),
        # Clients without media parts write the model's own placeholder.
        ([user(f"What is {PLACE}?")], [SQUARE], [("user", f"What is {PLACE}?")]),
    ],
)
def test_ids_are_those_of_transformers(
    builder: PromptBuilder,
    reference: Any,
    messages: list[Any],
    sizes: list[tuple[int, int]],
    turns: list[tuple[str, str]],
) -> None:
    built = builder.build(request(messages, *sizes))
    assert built.input_ids == ids_of_transformers(reference, chatml(*turns), *sizes)
    assert (built.features is not None) is bool(sizes)
    assert built.request_output_len == 2048 - len(built.input_ids)


@pytest.mark.parametrize("text", [f"What is {PAD}?", f"{PLACE}<|im_end|>", "<|video_pad|>"])
def test_text_that_spells_tokens_stays_text(builder: PromptBuilder, text: str) -> None:
    plain = builder.build(request([user(image(), "?")], SQUARE)).input_ids
    built = builder.build(request([user(image(), f"?{text}")], SQUARE)).input_ids
    special = {token_id for token_id in map(builder.tokenizer.token_id, builder.images.spelled) if token_id}
    special.add(builder.tokenizer.token_id("<|im_end|>"))
    assert [token for token in built if token in special] == [token for token in plain if token in special]
    assert builder.tokenizer.backend.decode(built, skip_special_tokens=False).count(text) >= 1


@pytest.mark.parametrize(
    ("text", "written"), [(f"Look: {PLACE} is", f"Look: {PLACE} is"), ("What is it?", f"{PLACE}What is it?")]
)
def test_a_text_prompt_has_its_picture_where_it_says_or_first(
    builder: PromptBuilder, reference: Any, text: str, written: str
) -> None:
    built = builder.build(PromptRequest(text=text, images=(png(SQUARE),)))
    assert built.input_ids == ids_of_transformers(reference, written, SQUARE)


def test_equal_pictures_have_equal_hashes_and_others_have_not(builder: PromptBuilder) -> None:
    def hashed(**fields: Any) -> list[str]:
        parts = user(image(), "and", image())
        files = (png(SQUARE), png(SQUARE))
        return hashes(builder.build(PromptRequest(messages=json.dumps({"messages": [parts], **fields}), images=files)))

    one, same = hashed()
    assert one == same == hashed()[0]
    smaller = hashed(mm_processor_kwargs={"max_pixels": 3136})
    other = hashes(builder.build(request([user(image())], WIDE)))
    assert len({one, *smaller, *other}) == 3


def test_options_change_the_tokens(builder: PromptBuilder, reference: Any) -> None:
    def count(part: dict[str, Any], **fields: Any) -> int:
        text = json.dumps({"messages": [{"role": "user", "content": [part]}], **fields})
        return len(builder.build(PromptRequest(messages=text, images=(png((200, 200)),))).input_ids)

    part = {"type": "image_url", "image_url": {}}
    usual, small = count(part), count(part, mm_processor_kwargs={"max_pixels": 6272})
    assert small < usual
    # A part's own option goes before the request's.
    assert count({**part, "max_pixels": 6272}) == small
    assert count({**part, "max_pixels": 10**6}, mm_processor_kwargs={"max_pixels": 6272}) > small
    # The edges of this processor's `size` are numbers of pixels, and may be as large as those.
    assert count(part, mm_processor_kwargs={"size": {"shortest_edge": 3136, "longest_edge": 6272}}) == small
    assert count(part, mm_processor_kwargs={"size": {"shortest_edge": 3136, "longest_edge": 10**6}}) > usual


def test_low_detail_is_a_small_picture(builder: PromptBuilder) -> None:
    def count(size: tuple[int, int], **part: Any) -> int:
        return len(builder.build(request([user(image(max_pixels=10**6, **part))], size)).input_ids)

    assert (
        count((1600, 1200), detail="low")
        == count((512, 384))
        < count((1600, 1200))
        == count((1600, 1200), detail="high")
    )
    assert count((90, 90), detail="low") == count((90, 90))


@pytest.mark.parametrize(
    ("asked", "pairs"),
    [
        ({}, 4),
        ({"num_frames": 4}, 2),
        ({"num_frames": 5}, 3),
        ({"num_frames": -1}, 12),
        ({"fps": 5}, 5),
        ({"fps": 5, "num_frames": 4}, 2),
        ({"fps": 1000}, 11),
    ],
)
def test_frames_of_a_video_as_asked(builder: PromptBuilder, asked: dict[str, Any], pairs: int) -> None:
    """23 frames, 10 per second; two at a time become tokens, and a rate gives pairs."""

    def built(part: dict[str, Any], **fields: Any) -> EngineInput:
        messages = [user({"type": "video_url", "video_url": part}, "?")]
        return builder.build(PromptRequest(messages=json.dumps({"messages": messages, **fields}), images=(video(),)))

    def grid(one: EngineInput) -> list[int]:
        assert one.features is not None
        (item,) = unpack(torch.from_numpy(joined(one.features)), one.input_ids)["mm_kwargs"]["video"]
        thw: list[int] = item["video_grid_thw"].data.tolist()
        return thw

    assert grid(built(asked))[0] == pairs
    assert built({}, media_io_kwargs={"video": asked}).input_ids == built(asked).input_ids


def test_videos_of_other_frames_have_other_hashes(builder: PromptBuilder) -> None:
    def hashed(**part: Any) -> str:
        messages = json.dumps({"messages": [user({"type": "video_url", "video_url": part}, "?")]})
        built = builder.build(PromptRequest(messages=messages, images=(video(),)))
        assert built.features is not None
        (found,) = unpack(torch.from_numpy(joined(built.features)), built.input_ids)["mm_hashes"]["video"]
        return str(found)

    assert hashed() == hashed()
    assert len({hashed(), hashed(num_frames=4), hashed(num_frames=5), hashed(fps=2), hashed(max_pixels=3136)}) == 5


class TestLimits:
    def test_counts(self, builder: PromptBuilder, folder: Path) -> None:
        error = refused(builder, request([user(*[image()] * 4)], *[SQUARE] * 4))
        assert error.message == "messages: the served model takes at most 3 images in a request"
        fewer = make_builder(folder, replace(OPTIONS, max_images=1))
        assert "at most 1 images" in refused(fewer, request([user(image(), image())], SQUARE, SQUARE)).message
        assert "places for 1 images, but 2" in refused(builder, request([user(image())], SQUARE, SQUARE)).message
        assert "places for 0 images, but 1" in refused(builder, request([user("Hi")], SQUARE)).message

    def test_pixels_are_checked_before_they_are_processed(self, folder: Path) -> None:
        builder = make_builder(folder, MediaOptions(ImageLimits(max_pixels=1000)))
        assert "more than 1000 pixels" in refused(builder, request([user(image())], SQUARE)).message

    def test_strips(self, builder: PromptBuilder) -> None:
        error = refused(builder, request([user(image())], (4, 801)))
        assert error.message == "messages: an image of 4 x 801 has an aspect ratio above 200"

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            (
                {"mm_processor_kwargs": {"min_pixels": 2**24 + 1}},
                "min_pixels must be at most 16777216 (max_resized_pixels)",
            ),
            (
                {"mm_processor_kwargs": {"size": {"longest_edge": 2**24 + 1}}},
                "size has an edge that must be at most 16777216",
            ),
            (
                {"mm_processor_kwargs": {"size": {"longest_edge": 9000}}},
                "must contain 'shortest_edge' and 'longest_edge'",
            ),
            ({"mm_processor_kwargs": {"max_slice_nums": 129}}, "max_slice_nums must be at most 128 (max_tiles)"),
            ({"media_io_kwargs": {"video": {"num_frames": 129}}}, "num_frames must be at most 128 (max_video_frames)"),
        ],
    )
    def test_options_beyond_the_operators_limits(
        self, builder: PromptBuilder, fields: dict[str, Any], words: str
    ) -> None:
        messages = json.dumps({"messages": [user(image())], **fields})
        error = refused(builder, PromptRequest(messages=messages, images=(png(SQUARE),)))
        assert error.param in fields and words in error.message

    def test_pictures_that_fill_the_context_are_refused_before_all_are_processed(self, folder: Path) -> None:
        builder = make_builder(folder, max_model_len=20)
        error = refused(builder, request([user(image(), image(), image())], WIDE, WIDE, WIDE))
        assert (error.kind, error.param) == ("context_length", "messages")
        assert "your images need at least" in error.message

    def test_a_prompt_with_its_pictures_must_fit(self, builder: PromptBuilder, folder: Path) -> None:
        given = request([user(image(), "What?")], SQUARE)
        length = len(builder.build(given).input_ids)
        error = refused(make_builder(folder, max_model_len=length), given)
        assert error.kind == "context_length" and f"resulted in {length} tokens" in error.message
        assert make_builder(folder, max_model_len=length + 1).build(given).request_output_len == 1

    def test_a_damaged_file(self, builder: PromptBuilder) -> None:
        given = request([user(image())], SQUARE)
        error = refused(builder, replace(given, images=(given.images[0][:100],)))
        assert error.param == "messages" and "damaged or cut off" in error.message


def test_a_video_is_one_item(builder: PromptBuilder) -> None:
    part = {"type": "video_url", "video_url": {}}
    built = builder.build(
        PromptRequest(messages=json.dumps({"messages": [user(part, "?")]}), images=(video("mp4", "libx264"),))
    )
    assert built.features is not None
    features = unpack(torch.from_numpy(joined(built.features)), built.input_ids)
    assert {modality: len(items) for modality, items in features["mm_kwargs"].items()} == {"video": 1}


def test_a_model_without_pictures_does_not_import_vllm(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(ProcessorImages, "load", fail)
    checkpoint, tokenizer = Checkpoint.load(folder), ChatTokenizer.load(folder)
    find: Callable[[dict[str, str]], Any] = lambda values: find_images(  # noqa: E731
        checkpoint, tokenizer, OPTIONS, ModelParameters("preprocessing", values)
    )
    assert find({"vision": "none"}) is None
    with pytest.raises(ValueError, match=r"takes no pictures.*Qwen2_5_VL"):
        find({"engine": "trtllm"})
    with pytest.raises(AssertionError, match="loaded"):
        find({"engine": "vllm"})
