# SPDX-License-Identifier: Apache-2.0
"""InternVL's images in prompts: their places, their ids, and the requests that are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from families.stylers.internvl2_5 import SYSTEM_PROMPT
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.sampling import segment_centres
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest
from tests.support.image_prompts import LARGE, SMALL, VOCAB, WIDE, image, internvl_builder, png, refused, request, user
from tests.support.videos import video


def whole_text(builder: PromptBuilder, *turns: tuple[str, str]) -> list[int]:
    """The prompt as the family's own examples write it, with every image token spelled out."""
    text = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
    text += "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return builder.tokenizer.encode(text + "<|im_start|>assistant\n", add_special_tokens=False)


def tokens(tiles: int) -> str:
    return f"<img>{'<IMG_CONTEXT>' * (256 * tiles)}</img>"


def clip(**options: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": options}


def films(messages: list[dict[str, Any]], *files: bytes, **fields: Any) -> PromptRequest:
    return PromptRequest(messages=json.dumps({"messages": messages, **fields}), images=files)


def check_internvl(builder: PromptBuilder, built: EngineInput, expected: list[int], tiles: list[int]) -> None:
    """Ids equal the spelled-out prompt but for the image tokens, which count up from the vocabulary's end."""
    context = builder.tokenizer.token_id("<IMG_CONTEXT>")
    at = np.array(expected) == context
    ids = np.array(built.input_ids)
    assert len(ids) == len(expected)
    assert np.array_equal(ids[~at], np.array(expected)[~at])
    assert np.array_equal(ids[at], VOCAB + np.arange(256 * sum(tiles)))
    extra = np.array(built.extra_ids, dtype=np.uint64)
    assert not extra[~at].any()
    ends = np.cumsum(tiles) * 256
    for picture, end, count in zip(built.pictures, ends, tiles, strict=True):
        assert picture.pixels.shape == (count, 448, 448, 3)
        assert (extra[at][end - 256 * count : end] == picture.extra_ids[0]).all()


class TestInternVL:
    def test_a_marker(self, internvl: PromptBuilder) -> None:
        built = internvl.build(request([user("<image>\n简述一下这张图片的内容。", image())], LARGE))
        expected = whole_text(internvl, ("user", f"{tokens(13)}\n简述一下这张图片的内容。"))
        check_internvl(internvl, built, expected, [13])

    def test_without_markers_images_come_first(self, internvl: PromptBuilder) -> None:
        built = internvl.build(request([user("What differs?", image(), image())], SMALL, WIDE))
        expected = whole_text(internvl, ("user", f"{tokens(1)}\n{tokens(3)}\nWhat differs?"))
        check_internvl(internvl, built, expected, [1, 3])

    def test_several_images_and_turns(self, internvl: PromptBuilder) -> None:
        turns = [
            user("Image-1: <image>\nImage-2: <image>\n描述一下两张图片的不同。", image(), image()),
            {"role": "assistant", "content": "小熊猫 and an <image>."},
            user("And this?", image()),
            {"role": "assistant", "content": "Trees."},
            {"role": "user", "content": "描述一下图片-2中的熊猫所在的环境。"},
        ]
        built = internvl.build(request(turns, WIDE, SMALL, SMALL))
        expected = whole_text(
            internvl,
            ("user", f"Image-1: {tokens(3)}\nImage-2: {tokens(1)}\n描述一下两张图片的不同。"),
            ("assistant", "小熊猫 and an <image>."),
            ("user", f"{tokens(1)}\nAnd this?"),
            ("assistant", "Trees."),
            ("user", "描述一下图片-2中的熊猫所在的环境。"),
        )
        check_internvl(internvl, built, expected, [3, 1, 1])

    def test_six_frames(self, internvl: PromptBuilder) -> None:
        lines = "".join(f"Frame{n}:<image>\n" for n in range(1, 7))
        built = internvl.build(request([user(lines + "描述一下视频的内容。不要重复。", *[image()] * 6)], *[SMALL] * 6))
        spelled = lines.replace("<image>", tokens(1))
        check_internvl(
            internvl, built, whole_text(internvl, ("user", spelled + "描述一下视频的内容。不要重复。")), [1] * 6
        )

    def test_a_video(self, internvl: PromptBuilder) -> None:
        spelled = "".join(f"Frame{n}: {tokens(1)}\n" for n in range(1, 9))
        for text, expected in (
            ("What happens?", f"{spelled}What happens?"),
            ("Watch <video> and <image>.", f"Watch {spelled.strip()} and {tokens(3)}."),
        ):
            parts = (clip(), image()) if "<image>" in text else (clip(),)
            messages = json.dumps({"messages": [user(text, *parts)]})
            built = internvl.build(PromptRequest(messages=messages, images=(video(), png(WIDE))[: len(parts)]))
            tiles = [1] * 8 + ([3] if "<image>" in text else [])
            check_internvl(internvl, built, whole_text(internvl, ("user", expected)), tiles)
        brightest = [picture.pixels.sum(axis=(0, 1, 3)).argmax() for picture in built.pictures[:8]]
        assert brightest == sorted(brightest), "the bar of the video moves right from frame to frame"

    def test_videos_of_as_many_frames_as_asked(self, internvl: PromptBuilder) -> None:
        """23 frames, 10 per second: the request asks for 4 a second, one video for three frames in all."""
        messages = [user("First: <video> Then: <video> And <image>.", clip(num_frames=3), clip(), image())]
        built = internvl.build(films(messages, video(), video(), png(SMALL), media_io_kwargs={"video": {"fps": 4}}))
        three, nine = ("\n".join(f"Frame{number}: {tokens(1)}" for number in range(1, count + 1)) for count in (3, 9))
        expected = whole_text(internvl, ("user", f"First: {three} Then: {nine} And {tokens(1)}."))
        check_internvl(internvl, built, expected, [1] * 13)
        for asked, pictures in ((3, built.pictures[:3]), (9, built.pictures[3:12])):
            alone = internvl.build(films([user("?", clip(num_frames=asked))], video())).pictures
            for picture, other in zip(pictures, alone, strict=True):
                assert picture.extra_ids == other.extra_ids and np.array_equal(picture.pixels, other.pixels)

    @pytest.mark.parametrize(
        ("part", "fields", "frames"),
        [
            ({}, {}, 8),
            ({"num_frames": 30}, {}, 23),
            ({"num_frames": -1}, {}, 23),
            ({"fps": 1}, {}, 2),
            ({"fps": 1000}, {}, 23),
            ({"fps": 4, "num_frames": 5}, {}, 5),
            ({}, {"media_io_kwargs": {"video": {"num_frames": 2}}}, 2),
            ({}, {"mm_processor_kwargs": {"num_frames": 2}}, 2),
            ({"num_frames": 6}, {"media_io_kwargs": {"video": {"fps": 1}}}, 6),
        ],
    )
    def test_how_many_frames(
        self, internvl: PromptBuilder, part: dict[str, Any], fields: dict[str, Any], frames: int
    ) -> None:
        built = internvl.build(films([user("?", clip(**part))], video(), **fields))
        assert [picture.frame for picture in built.pictures] == list(range(1, frames + 1))
        assert len([number for number in built.extra_ids or () if number]) == 256 * frames

    def test_a_frame_is_cached_by_its_place_in_the_video(self, internvl: PromptBuilder) -> None:
        def ids(frames: int) -> list[int]:
            built = internvl.build(films([user("?", clip(num_frames=frames))], video(frames=21)))
            return [picture.extra_ids[0] for picture in built.pictures]

        for one, other in ((1, 7), (2, 7), (2, 3)):
            places = [segment_centres(21, count) for count in (one, other)]
            assert len({*ids(one), *ids(other)}) == len({*places[0], *places[1]})

    def test_tiles_as_asked(self, internvl: PromptBuilder) -> None:
        def built(part: dict[str, Any], **fields: Any) -> EngineInput:
            return internvl.build(films([user("?", image(**part))], png(LARGE), **fields))

        assert len(built({}).pictures[0].pixels) == 13
        for fewer in (
            built({"max_dynamic_patch": 4}),
            built({}, mm_processor_kwargs={"max_dynamic_patch": 4}),
            built({}, mm_processor_kwargs={"images_kwargs": {"max_dynamic_patch": 4}, "max_dynamic_patch": 9}),
            built({"max_dynamic_patch": 4}, mm_processor_kwargs={"max_dynamic_patch": 9}),
        ):
            assert len(fewer.pictures[0].pixels) == 5  # 2 x 2 and the thumbnail
            assert fewer.pictures[0].extra_ids != built({}).pictures[0].extra_ids
        assert len(built({}, mm_processor_kwargs={"dynamic_image_size": False}).pictures[0].pixels) == 1

    @pytest.mark.parametrize(
        ("part", "fields", "param", "words"),
        [
            (
                image(),
                {"mm_processor_kwargs": {"min_pixels": 5}},
                "mm_processor_kwargs",
                "has 'min_pixels', which this",
            ),
            (
                image(),
                {"mm_processor_kwargs": {"videos_kwargs": {"size": {}}}},
                "mm_processor_kwargs",
                "videos_kwargs.s",
            ),
            (
                image(max_pixels=5),
                {},
                "messages",
                "an option is 'max_pixels', which this model does not take; it takes m",
            ),
            (image(max_dynamic_patch=129), {}, "messages", "max_dynamic_patch must be at most 128 (max_tiles)"),
            ("clip", {"media_io_kwargs": {"video": {"num_frames": 129}}}, "media_io_kwargs", "must be at most 128"),
            (image(), {"media_io_kwargs": {"video": {"fps": "2"}}}, "media_io_kwargs", "video.fps must be a number"),
        ],
    )
    def test_options_that_are_refused(
        self, internvl: PromptBuilder, part: Any, fields: dict[str, Any], param: str, words: str
    ) -> None:
        part, file = (clip(), video()) if part == "clip" else (part, png(SMALL))
        error = refused(internvl, films([user("?", part)], file, **fields))
        assert error.param == param and words in error.message

    def test_the_operators_maximum_of_frames(self, qwen3_tokenizer_dir: Path) -> None:
        builder = internvl_builder(qwen3_tokenizer_dir, MediaOptions(ImageLimits(), video_frames=2, max_video_frames=4))
        for options, frames in (({}, 2), ({"fps": 9}, 4), ({"num_frames": 4}, 4)):
            assert len(builder.build(films([user("?", clip(**options))], video())).pictures) == frames
        assert (
            "at most 4 (max_video_frames)" in refused(builder, films([user("?", clip(num_frames=5))], video())).message
        )
        assert (
            "would have 23 frames, above the server's maximum of 4"
            in refused(builder, films([user("?", clip(num_frames=-1))], video())).message
        )

    @pytest.mark.parametrize(
        "text", ["<img></img>", "<image> and <image>", "<video>", "<img>", "</img>", "<IMG_CONTEXT>"]
    )
    def test_markers_that_are_not_those_of_the_parts_are_text(self, internvl: PromptBuilder, text: str) -> None:
        built = internvl.build(request([user(text, image())], SMALL))
        word = internvl.build(request([user("word", image())], SMALL))
        assert built.input_ids != word.input_ids
        assert [picture.extra_ids for picture in built.pictures] == [picture.extra_ids for picture in word.pictures]
        for token in ("<img>", "</img>", "<IMG_CONTEXT>"):
            token_id = internvl.tokenizer.token_id(token)
            assert built.input_ids.count(token_id) == word.input_ids.count(token_id)

    def test_low_detail_is_one_tile(self, internvl: PromptBuilder) -> None:
        built = internvl.build(request([user("?", image(detail="low"))], LARGE))
        assert [len(picture.pixels) for picture in built.pictures] == [1]
        assert built.pictures[0].extra_ids != internvl.build(request([user("?", image())], LARGE)).pictures[0].extra_ids

    def test_equal_files_have_equal_ids_and_others_not(self, internvl: PromptBuilder) -> None:
        messages = [user("?", image(), image())]
        files = (png(SMALL, 1), png(SMALL, 1))
        built = internvl.build(PromptRequest(messages=json.dumps({"messages": messages}), images=files))
        assert built.pictures[0].extra_ids == built.pictures[1].extra_ids
        other = internvl.build(
            PromptRequest(messages=json.dumps({"messages": messages}), images=(files[0], png(SMALL, 2)))
        )
        assert other.pictures[0].extra_ids == built.pictures[0].extra_ids
        assert other.pictures[1].extra_ids != built.pictures[1].extra_ids

    def test_triton_clients_need_no_image_parts(self, internvl: PromptBuilder) -> None:
        parts = internvl.build(request([user("<image>\nWhat?", image())], WIDE))
        marked = internvl.build(request([{"role": "user", "content": "<image>\nWhat?"}], WIDE))
        assert marked.input_ids == parts.input_ids
        for text in ("<image>\nWhat?", "What?"):
            raw = internvl.build(PromptRequest(text=text, images=(png(WIDE),)))
            spelled = internvl.tokenizer.encode(f"{tokens(3)}\nWhat?", add_special_tokens=True)
            check_internvl(internvl, raw, spelled, [3])

    def test_a_marker_in_a_chat_without_images_is_text(self, internvl: PromptBuilder) -> None:
        page = "<channel><image><url>logo.png</url></image></channel>"
        for content in (page, [{"type": "text", "text": page}]):
            built = internvl.build(request([{"role": "user", "content": content}]))
            assert built.input_ids == whole_text(internvl, ("user", page))
        turns = [user("What?", image()), {"role": "assistant", "content": "A page."}, user(page)]
        built = internvl.build(request(turns, SMALL))
        expected = whole_text(internvl, ("user", f"{tokens(1)}\nWhat?"), ("assistant", "A page."), ("user", page))
        check_internvl(internvl, built, expected, [1])

    def test_a_text_chat(self, internvl: PromptBuilder) -> None:
        built = internvl.build(request([{"role": "user", "content": "a <video> element"}]))
        assert built.input_ids == whole_text(internvl, ("user", "a <video> element"))
        assert built.extra_ids is None
        assert not built.pictures

    @pytest.mark.parametrize(
        ("messages", "images", "words"),
        [
            ([{"role": "user", "content": "no place"}], 1, "places for 0 images, but 1 images were given"),
            ([user("?", image())], 2, "places for 1 images, but 2 images were given"),
            (
                [{"role": "system", "content": [image()]}, user("?")],
                1,
                "messages[0].content has an image or a video, which sys",
            ),
            (
                [{"role": "assistant", "content": [image()]}, user("?")],
                1,
                "messages[0].content has an image or a video, which ass",
            ),
            (
                [user("?", image(detail="medium"))],
                1,
                "messages[0].content[1].image_url.detail must be one of auto, high, low",
            ),
            ([user("?", {"type": "input_audio"})], 0, "messages[0].content[1].type is input_audio: audio is not s"),
        ],
    )
    def test_mismatches(self, internvl: PromptBuilder, messages: list[Any], images: int, words: str) -> None:
        error = refused(internvl, request(messages, *[SMALL] * images))
        assert words in error.message
        assert (error.kind, error.param) == ("invalid_request", "messages")

    def test_ids_take_no_images(self, internvl: PromptBuilder) -> None:
        assert refused(internvl, PromptRequest(input_ids=(1, 2), images=(png(SMALL),))).param == "prompt"

    def test_limits(self, qwen3_tokenizer_dir: Path) -> None:
        few = internvl_builder(qwen3_tokenizer_dir, MediaOptions(ImageLimits(), max_images=1, max_tiles=4))
        assert "at most 1 images" in refused(few, request([user("?", image(), image())], SMALL, SMALL)).message
        assert "at most 4 tiles" in refused(few, request([user("?", image())], LARGE)).message
        assert len(few.build(request([user("?", image())], WIDE)).pictures) == 1
        coarse = internvl_builder(qwen3_tokenizer_dir, MediaOptions(ImageLimits(), max_tiles_per_image=4))
        assert len(coarse.build(request([user("?", image())], (2000, 1999))).pictures[0].pixels) == 5

    def test_too_many_tokens(self, qwen3_tokenizer_dir: Path) -> None:
        short = internvl_builder(qwen3_tokenizer_dir, max_model_len=600)
        error = refused(short, request([user("?", image())], WIDE))
        assert (error.kind, error.param) == ("context_length", "messages")

    def test_not_an_image(self, internvl: PromptBuilder) -> None:
        messages = json.dumps({"messages": [user("?", image())]})
        error = refused(internvl, PromptRequest(messages=messages, images=(b"<html>no image</html>",)))
        assert (error.kind, error.param) == ("invalid_request", "messages")
