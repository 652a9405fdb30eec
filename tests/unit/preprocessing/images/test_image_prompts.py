# SPDX-License-Identifier: Apache-2.0
"""Images in prompts: their places, their ids, and the requests that are refused."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.stylers.internvl2_5 import SYSTEM_PROMPT
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.gemma3 import Gemma3Images
from preprocessing.images.internvl import InternVLImages
from preprocessing.images.registry import find_images
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest
from tests.support.videos import video

OPTIONS = MediaOptions(limits=ImageLimits())
VISION = {
    "model_type": "internvit",
    "family": "internvl2_5",
    "image_size": 448,
    "patch_size": 14,
    "downsample_ratio": 0.5,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 12,
    "use_thumbnail": True,
    "image_start": "<img>",
    "image_token": "<IMG_CONTEXT>",
    "image_end": "</img>",
}
VOCAB = 151680
SMALL, WIDE, LARGE = (300, 300), (896, 448), (1600, 1200)  # 1, 3 and 13 tiles


def png(size: tuple[int, int], seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 10 + 1, size[0] // 10 + 1, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size).save(file, "PNG")
    return file.getvalue()


def user(*parts: str | dict[str, Any]) -> dict[str, Any]:
    content = [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": "user", "content": content}


def image(**fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": fields}


def request(messages: list[dict[str, Any]], *sizes: tuple[int, int]) -> PromptRequest:
    files = tuple(png(size, seed) for seed, size in enumerate(sizes))
    return PromptRequest(messages=json.dumps({"messages": messages}), images=files)


def internvl_builder(folder: Path, options: MediaOptions = OPTIONS, max_model_len: int = 8192) -> PromptBuilder:
    checkpoint = Checkpoint(folder, "qwen2", ("Qwen2ForCausalLM",), VOCAB, 32768, (151645,), 151643)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<img>", "</img>", "<IMG_CONTEXT>"]})
    wrapped = ChatTokenizer(tokenizer)
    images = InternVLImages(checkpoint, wrapped, options, VISION)
    return PromptBuilder(checkpoint, wrapped, find_styler(checkpoint, "internvl2_5"), max_model_len, images)


@pytest.fixture(scope="module")
def internvl(qwen3_tokenizer_dir: Path) -> PromptBuilder:
    return internvl_builder(qwen3_tokenizer_dir)


@pytest.fixture(scope="module")
def gemma3_tokenizer(gemma3_tokenizer_dir: Path) -> ChatTokenizer:
    return ChatTokenizer.load(gemma3_tokenizer_dir)


@pytest.fixture(scope="module")
def gemma3(gemma3_tokenizer: ChatTokenizer) -> PromptBuilder:
    return gemma3_builder(gemma3_tokenizer, OPTIONS)


def gemma3_builder(tokenizer: ChatTokenizer, options: MediaOptions) -> PromptBuilder:
    checkpoint = Checkpoint(Path(), "gemma3", ("Gemma3ForConditionalGeneration",), 262208, 32768, (1, 106), 0)
    config = {"vision_config": {"image_size": 896}, "mm_tokens_per_image": 256}
    images = Gemma3Images(checkpoint, tokenizer, options, config)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint), 16384, images)


def refused(builder: PromptBuilder, given: PromptRequest) -> RequestError:
    with pytest.raises(RequestError) as error:
        builder.build(given)
    return error.value


def whole_text(builder: PromptBuilder, *turns: tuple[str, str]) -> list[int]:
    """The prompt as the family's own examples write it, with every image token spelled out."""
    text = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
    text += "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return builder.tokenizer.encode(text + "<|im_start|>assistant\n", add_special_tokens=False)


def tokens(tiles: int) -> str:
    return f"<img>{'<IMG_CONTEXT>' * (256 * tiles)}</img>"


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
        clip = {"type": "video_url", "video_url": {}}
        spelled = "".join(f"Frame{n}: {tokens(1)}\n" for n in range(1, 9))
        for text, expected in (
            ("What happens?", f"{spelled}What happens?"),
            ("Watch <video> and <image>.", f"Watch {spelled.strip()} and {tokens(3)}."),
        ):
            parts = (clip, image()) if "<image>" in text else (clip,)
            messages = json.dumps({"messages": [user(text, *parts)]})
            built = internvl.build(PromptRequest(messages=messages, images=(video(), png(WIDE))[: len(parts)]))
            tiles = [1] * 8 + ([3] if "<image>" in text else [])
            check_internvl(internvl, built, whole_text(internvl, ("user", expected)), tiles)
        brightest = [picture.pixels.sum(axis=(0, 1, 3)).argmax() for picture in built.pictures[:8]]
        assert brightest == sorted(brightest), "the bar of the video moves right from frame to frame"

    def test_markers_of_the_wrong_kind(self, internvl: PromptBuilder) -> None:
        given = request([user("<image>", {"type": "video_url", "video_url": {}})], SMALL)
        assert "has the markers <image> for the parts video" in refused(internvl, given).message

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

    def test_a_text_chat(self, internvl: PromptBuilder) -> None:
        built = internvl.build(request([{"role": "user", "content": "a <video> element"}]))
        assert built.input_ids == whole_text(internvl, ("user", "a <video> element"))
        assert built.extra_ids is None
        assert not built.pictures

    @pytest.mark.parametrize(
        ("messages", "images", "words"),
        [
            ([user("<image> and <image>", image())], 1, "messages[0].content has 2 <image> markers for 1 images"),
            ([user("<image>", image(), image())], 2, "messages[0].content has 1 <image> markers for 2 images"),
            ([{"role": "user", "content": "<image>"}], 0, "places for 1 images, but 0 images were given"),
            ([{"role": "user", "content": "no place"}], 1, "places for 0 images, but 1 images were given"),
            ([user("?", image())], 2, "places for 1 images, but 2 images were given"),
            ([user("<IMG_CONTEXT>", image())], 1, "spell a token that stands for images"),
            ([{"role": "system", "content": [image()]}, user("?")], 1, "messages[0].content has an image"),
            ([{"role": "assistant", "content": [image()]}, user("?")], 1, "messages[0].content has an image"),
            (
                [user("?", image(detail="medium"))],
                1,
                "messages[0].content[1].image_url.detail must be one of auto, high, low",
            ),
            ([user("?", {"type": "input_audio"})], 0, "messages[0].content[1].type must be one of"),
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

    def test_a_spelled_marker(self, gemma3: PromptBuilder) -> None:
        error = refused(gemma3, request([user("a <start_of_image>", image())], SMALL))
        assert "spells <start_of_image>" in error.message
        assert "1 images, but 0" in refused(gemma3, request([user("a <start_of_image>")])).message
        assert "spell a token" in refused(gemma3, request([user("<image_soft_token>", image())], SMALL)).message


def test_which_checkpoints_take_images(
    tmp_path: Path, qwen3_tokenizer_dir: Path, gemma3_tokenizer: ChatTokenizer, internvl: PromptBuilder
) -> None:
    def found(config: dict[str, Any], vision: dict[str, Any] | None, tokenizer: ChatTokenizer) -> type:
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "vision").mkdir(exist_ok=True)
        (tmp_path / "vision" / "config.json").write_text(json.dumps(vision or {}))
        checkpoint = Checkpoint(tmp_path, config["model_type"], (), VOCAB, 32768, (1,), 0)
        return type(find_images(checkpoint, tokenizer, OPTIONS))

    assert found({"model_type": "qwen2"}, VISION, internvl.tokenizer) is InternVLImages
    assert found({"model_type": "qwen2"}, None, internvl.tokenizer) is type(None)
    assert found({"model_type": "gemma3", "vision_config": {}}, None, gemma3_tokenizer) is Gemma3Images
    # A split Gemma 3 is only its language model: a text engine has no bidirectional attention for image tokens.
    assert found({"model_type": "gemma3_text"}, {"model_type": "siglip_gemma3"}, gemma3_tokenizer) is type(None)
    with pytest.raises(ValueError, match="has no token <IMG_CONTEXT>"):
        found({"model_type": "qwen2"}, VISION, ChatTokenizer.load(qwen3_tokenizer_dir))
    incomplete = {key: value for key, value in VISION.items() if key != "use_thumbnail"}
    with pytest.raises(ValueError, match="use_thumbnail"):
        found({"model_type": "qwen2"}, incomplete, internvl.tokenizer)


def test_the_vision_part_names_styler_and_system_prompt(tmp_path: Path) -> None:
    (tmp_path / "vision").mkdir()
    (tmp_path / "vision" / "config.json").write_text(json.dumps({**VISION, "system_prompt": "Look closely."}))
    checkpoint = Checkpoint(tmp_path, "llama", (), VOCAB, 32768, (1,), 0)
    styler = find_styler(checkpoint)
    assert styler.name == "internvl2_5"
    assert styler.template_defaults == {"default_system": "Look closely."}
