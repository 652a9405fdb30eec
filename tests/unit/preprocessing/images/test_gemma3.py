# SPDX-License-Identifier: Apache-2.0
"""Gemma 3's images in prompts, compared with transformers' processor."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

from common.tokenizer import ChatTokenizer
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.gemma3 import END, SOFT, START
from preprocessing.prompt import PromptBuilder, PromptRequest
from tests.support.image_prompts import OPTIONS, SMALL, gemma3_builder, image, png, refused, request, user
from tests.support.videos import video


@pytest.fixture(scope="module")
def gemma3(gemma3_tokenizer: ChatTokenizer) -> PromptBuilder:
    return gemma3_builder(gemma3_tokenizer, OPTIONS)


@pytest.fixture(scope="module")
def processor(gemma3_tokenizer_dir: Path) -> Gemma3Processor:
    tokenizer = AutoTokenizer.from_pretrained(
        gemma3_tokenizer_dir,
        extra_special_tokens={
            "image_token": "<image_soft_token>",
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
        },
    )
    images = Gemma3ImageProcessorPil(do_rescale=False, do_normalize=False, size={"height": 896, "width": 896})
    return Gemma3Processor(images, tokenizer, chat_template=tokenizer.chat_template, image_seq_length=256)


class TestGemma3:
    def expected(self, processor: Gemma3Processor, messages: list[Any], files: tuple[bytes, ...], **kwargs: Any) -> Any:
        """(ids, pixels) by transformers. Its template takes {"type": "image"} parts."""
        parts = {"image_url": lambda part: {"type": "image"}, "text": lambda part: part}
        templated = [
            {
                **m,
                "content": [parts[p["type"]](p) for p in m["content"]]
                if isinstance(m["content"], list)
                else m["content"],
            }
            for m in messages
        ]
        prompt = processor.apply_chat_template(templated, add_generation_prompt=True, tokenize=False)
        images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
        inputs = processor(text=prompt, images=images, add_special_tokens=False, **kwargs)
        return inputs["input_ids"][0], np.array(inputs["pixel_values"]).transpose(0, 2, 3, 1)

    @pytest.mark.parametrize(
        ("messages", "sizes"),
        [
            ([user("使用中文描述这张图像", image())], [(640, 480)]),
            ([user(image(), "What is this?")], [(1000, 300)]),
            (
                [{"role": "system", "content": "You are a helpful assistant."}, user("Describe\n", image())],
                [(896, 896)],
            ),
            ([user("One: ", image(), " two: ", image(), "\nWhat differs?")], [(50, 60), (300, 200)]),
            (
                [user("Look", image()), {"role": "assistant", "content": "A tree."}, user(image(), "And now?")],
                [(64, 64), (65, 65)],
            ),
        ],
    )
    def test_as_transformers(
        self, gemma3: PromptBuilder, processor: Gemma3Processor, messages: list[Any], sizes: list[tuple[int, int]]
    ) -> None:
        given = request(messages, *sizes)
        built = gemma3.build(given)
        ids, pixels = self.expected(processor, messages, given.images)
        assert built.input_ids == ids
        assert np.array_equal(np.concatenate([picture.pixels for picture in built.pictures]), pixels)
        extra = [number for number in built.extra_ids or () if number]
        assert len(extra) == 256 * len(sizes)
        assert len(set(extra)) == len(sizes)

    @pytest.mark.parametrize("size", [(1600, 700), (700, 1600), (1000, 1000), (2500, 600), (300, 200)])
    def test_pan_and_scan(
        self, gemma3_tokenizer: ChatTokenizer, processor: Gemma3Processor, size: tuple[int, int]
    ) -> None:
        builder = gemma3_builder(gemma3_tokenizer, MediaOptions(ImageLimits(), pan_and_scan=True))
        given = request([user(image(), "What is this?")], size)
        built = builder.build(given)
        ids, pixels = self.expected(
            processor,
            json.loads(given.messages or "")["messages"],
            given.images,
            do_pan_and_scan=True,
            pan_and_scan_min_crop_size=256,
            pan_and_scan_max_num_crops=4,
            pan_and_scan_min_ratio_to_activate=1.2,
        )
        assert built.input_ids == ids
        assert np.array_equal(built.pictures[0].pixels, pixels)
        runs = built.pictures[0].extra_ids
        assert len(set(runs)) == len(runs) == len(pixels)

    def test_pan_and_scan_as_the_request_says(self, gemma3: PromptBuilder, gemma3_tokenizer: ChatTokenizer) -> None:
        always = gemma3_builder(gemma3_tokenizer, MediaOptions(ImageLimits(), pan_and_scan=True))
        plain = request([user(image(), "?")], (1600, 700))
        low = request([user(image(detail="low"), "?")], (1600, 700))

        def asked(given: PromptRequest, value: bool) -> PromptRequest:
            body = json.loads(given.messages or "") | {"mm_processor_kwargs": {"do_pan_and_scan": value}}
            return replace(given, messages=json.dumps(body))

        crops, whole = always.build(plain), gemma3.build(plain)
        assert (len(crops.pictures[0].pixels), len(whole.pictures[0].pixels)) == (3, 1)
        for built, expected in (
            (gemma3.build(asked(plain, True)), crops),
            (always.build(asked(plain, False)), whole),
            (gemma3.build(asked(low, True)), whole),
        ):
            assert built.input_ids == expected.input_ids
            assert np.array_equal(built.pictures[0].pixels, expected.pictures[0].pixels)

    def test_a_video_of_as_many_frames_as_asked(self, gemma3: PromptBuilder, gemma3_tokenizer: ChatTokenizer) -> None:
        parts = [{"type": "video_url", "video_url": {"num_frames": 2}}, image()]
        messages = json.dumps({"messages": [user(*parts, "What?")]})
        built = gemma3.build(PromptRequest(messages=messages, images=(video(), png(SMALL))))
        picture = f"\n\n{START}{SOFT * 256}{END}\n\n"
        text = gemma3_tokenizer.backend.decode(built.input_ids, skip_special_tokens=False)
        assert f"Frame1: {picture}\nFrame2: {picture}\n{picture}What?" in text
        assert len({picture.extra_ids for picture in built.pictures}) == 3

    def test_options_of_other_families_are_refused(self, gemma3: PromptBuilder) -> None:
        messages = json.dumps({"messages": [user(image(), "?")], "mm_processor_kwargs": {"max_pixels": 5}})
        error = refused(gemma3, PromptRequest(messages=messages, images=(png(SMALL),)))
        assert error.param == "mm_processor_kwargs"
        assert "has 'max_pixels', which this model does not take; it takes do_pan_and_scan" in error.message

    def test_spelled_image_tokens_are_text(self, gemma3: PromptBuilder) -> None:
        plain = gemma3.build(request([user("a word", image())], SMALL)).input_ids
        for token in (START, SOFT, END):
            built = gemma3.build(request([user(f"a {token}", image())], SMALL))
            assert built.input_ids.count(gemma3.tokenizer.token_id(token)) == plain.count(
                gemma3.tokenizer.token_id(token)
            )
            assert token in gemma3.tokenizer.backend.decode(built.input_ids)
            assert not gemma3.build(request([user(f"a {token}")])).pictures

    def test_triton_clients_need_no_image_parts(self, gemma3: PromptBuilder) -> None:
        parts = gemma3.build(request([user("What?", image())], SMALL))
        spelled = gemma3.build(request([{"role": "user", "content": f"What?{START}"}], SMALL))
        assert len(spelled.pictures) == 1
        assert (
            spelled.input_ids.count(gemma3.tokenizer.token_id(SOFT))
            == 256
            == parts.input_ids.count(gemma3.tokenizer.token_id(SOFT))
        )
