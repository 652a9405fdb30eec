# SPDX-License-Identifier: Apache-2.0
"""Images through the whole stack: greedy tokens equal those of transformers, for each kind of vision model."""

import base64
import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as grpcclient
from numpy.typing import NDArray
from openai import BadRequestError, OpenAI
from PIL import Image
from tokenizers import Tokenizer
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    Gemma3ForConditionalGeneration,
    InternVLForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from tritonclient.utils import np_to_triton_dtype

from common.errors import RequestError
from families.stylers.internvl2_5 import SYSTEM_PROMPT
from scripts.launcher import FREE_PORTS, Stack
from scripts.split.splitter import split_checkpoint
from tests.support.passing_stack import passing_stack
from tests.support.tiny_vlms import make_tiny_vlm
from tests.support.videos import video
from tests.support.vlm_checkpoints import LARGE_TOWER, SMALL_TOWER, make_gemma3, make_internvl

NEW_TOKENS = 16
TILE = 56
# Longer than the KV cache's blocks, so that what follows the image can be found in the prefix cache.
STORY = "Once upon a time there was a small red fox who lived at the edge of a wide and quiet forest. " * 16


def picture(width: int, height: int, seed: int) -> Image.Image:
    """A picture of colour patches, different in every tile and compressible."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


SQUARE, WIDE, TALL = picture(60, 60, 1), picture(400, 180, 2), picture(100, 300, 3)
FRAMES = [picture(64, 48, seed) for seed in range(10, 16)]
# A dialogue: texts by turn, user first, and the images of each user turn.
Dialogue = list[tuple[str, list[Image.Image]] | str]
DIALOGUES: dict[str, Dialogue] = {
    "one image": [("<image>\n简述一下这张图片的内容。", [WIDE])],
    "no image": [("What is the capital of France?", [])],
    "two images": [("Image-1: <image>\nImage-2: <image>\n描述一下两张图片的不同。", [SQUARE, TALL])],
    "turns": [("<image>\nWhat is this?", [SQUARE]), "A fox.", ("<image>\nAnd this?", [WIDE]), "A tree.", ("Why?", [])],
    "frames": [("".join(f"Frame{n}:<image>\n" for n in range(1, 7)) + "描述一下视频的内容。", FRAMES)],
}


def messages_of(dialogue: Dialogue, marker: str | None) -> list[dict[str, Any]]:
    """Make OpenAI messages. marker: None removes the markers from the texts, so that the parts' positions decide."""
    messages: list[dict[str, Any]] = []
    for turn in dialogue:
        if isinstance(turn, str):
            messages.append({"role": "assistant", "content": turn})
            continue
        text, images = turn
        parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
        words = {"type": "text", "text": text if marker else text.replace("<image>", "")}
        messages.append({"role": "user", "content": [words, *parts] if images else words["text"]})
    return messages


def turns_of(dialogue: Dialogue) -> list[dict[str, Any]]:
    """Make messages of a dialogue as chat templates take them, with parts where the images are."""
    kinds = {"text": lambda part: part, "image_url": lambda part: {"type": "image"}}
    return [
        {**message, "content": message["content"]}
        if isinstance(message["content"], str)
        else {**message, "content": [kinds[part["type"]](part) for part in message["content"]]}
        for message in messages_of(dialogue, None)
    ]


def images_of(dialogue: Dialogue) -> list[Image.Image]:
    return [image for turn in dialogue if not isinstance(turn, str) for image in turn[1]]


@dataclass
class Seeing:
    """A running stack with a vision model, and the same model in transformers."""

    client: OpenAI
    stack: Stack
    marker: str | None
    reference: Any

    def answer(self, messages: list[dict[str, Any]], **fields: Any) -> Any:
        extra = {"skip_special_tokens": False, **fields.pop("extra_body", {})}
        return self.client.chat.completions.create(
            model="", messages=messages, temperature=0, max_tokens=NEW_TOKENS, extra_body=extra, **fields
        )

    def tokenize(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        answer = httpx.post(f"{self.stack.url}/tokenize", json={"messages": messages}, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def check(self, dialogue: Dialogue) -> str:
        """Compare the answer and its token counts with the reference; returns its text."""
        messages = messages_of(dialogue, self.marker)
        answer = self.answer(messages)
        text, prompt_tokens, completion_tokens = self.reference.answer(dialogue)
        assert answer.usage.prompt_tokens == prompt_tokens
        tokenized = self.tokenize(messages)
        assert tokenized["count"] == len(tokenized["tokens"]) == prompt_tokens
        assert answer.choices[0].message.content == text
        assert answer.usage.completion_tokens == completion_tokens
        return text


class Reference:
    """Greedy answers by transformers."""

    def __init__(self, model: Any, folder: Path) -> None:
        # Read from the file, as AutoTokenizer rebuilds the tokenizers of some families and drops added tokens.
        self._model, self._tokenizer = model, Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._chat = AutoTokenizer.from_pretrained(folder)
        ends = model.generation_config.eos_token_id
        self._ends = ends if isinstance(ends, list) else [ends]
        self._answers: dict[int, tuple[str, int, int]] = {}

    def answer(self, dialogue: Dialogue) -> tuple[str, int, int]:
        """Text, prompt tokens and completion tokens of the answer."""
        if id(dialogue) not in self._answers:
            self._answers[id(dialogue)] = self.generate(self.inputs(dialogue))
        return self._answers[id(dialogue)]

    def generate(self, inputs: dict[str, torch.Tensor]) -> tuple[str, int, int]:
        ids = inputs["input_ids"]
        with torch.inference_mode():
            written = self._model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = written[0, ids.shape[1] :].tolist()
        text = self._tokenizer.decode([token for token in new if token not in self._ends], skip_special_tokens=False)
        return text, ids.shape[1], len(new)

    def inputs(self, dialogue: Dialogue) -> dict[str, torch.Tensor]:
        """The model's inputs; `input_ids` are the prompt's."""
        ids = torch.tensor([self._tokenizer.encode(self.prompt(dialogue), add_special_tokens=False).ids])
        return {"input_ids": ids} | self.pixels(images_of(dialogue)) | self.types(ids)

    def types(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {}


class InternVLReference(Reference):
    def __init__(self, model: Any, folder: Path) -> None:
        super().__init__(model, folder)
        # Embeddings cross Triton in bf16, the contract's type and that of every published checkpoint of the family.
        model.model.multi_modal_projector.register_forward_hook(lambda module, given, rows: rows.bfloat16().float())

    def prompt(self, dialogue: Dialogue) -> str:
        text = f"<|im_start|>system\n{SYSTEM_PROMPT}<|im_end|>\n"
        for turn in dialogue:
            if isinstance(turn, str):
                text += f"<|im_start|>assistant\n{turn}<|im_end|>\n"
                continue
            written, images = turn
            for image in images:
                tokens = "<IMG_CONTEXT>" * (4 * len(self.pixels([image])["pixel_values"]))
                written = written.replace("<image>", f"<img>{tokens}</img>", 1)
            text += f"<|im_start|>user\n{written}<|im_end|>\n"
        return text + "<|im_start|>assistant\n"

    def pixels(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        processor = GotOcr2ImageProcessorPil(
            crop_to_patches=True,
            min_patches=1,
            max_patches=12,
            size={"height": TILE, "width": TILE},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        )
        return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"]} if images else {}


class Gemma3Reference(Reference):
    def prompt(self, dialogue: Dialogue) -> str:
        text = self._chat.apply_chat_template(turns_of(dialogue), add_generation_prompt=True, tokenize=False)
        image = f"\n\n<start_of_image>{'<image_soft_token>' * 256}<end_of_image>\n\n"
        return text.replace("<start_of_image>", image)

    def pixels(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        processor = Gemma3ImageProcessorPil(size={"height": 896, "width": 896})
        return {"pixel_values": processor(images, return_tensors="pt")["pixel_values"]} if images else {}

    def types(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"token_type_ids": (ids == self._model.config.image_token_id).long()}


class ProcessorReference(Reference):
    """Greedy answers of a model with its own processor."""

    def __init__(self, model: Any, folder: Path) -> None:
        super().__init__(model, folder)
        self._processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, dialogue: Dialogue, **options: Any) -> dict[str, torch.Tensor]:
        text = self._processor.apply_chat_template(turns_of(dialogue), add_generation_prompt=True, tokenize=False)
        return dict(self._processor(text=[text], images=images_of(dialogue) or None, return_tensors="pt", **options))


# name -> (language model, layout, hidden size, vision tower); None if the engine runs the vision tower.
MODELS: dict[str, tuple[str, str, int, dict[str, Any]] | None] = {
    "internvl2_5 on qwen2": ("qwen2", "transformers", 128, SMALL_TOWER),
    "internvl2_5 on internlm2": ("internlm2", "original", 256, LARGE_TOWER),
    "internvl3_5 on qwen3": ("qwen3", "original", 128, SMALL_TOWER),
    "internvl3_5 on qwen3_moe": ("qwen3_moe", "transformers", 128, LARGE_TOWER),
    "gemma3": None,
    "qwen2_5_vl": None,
}


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MODELS])
def seeing(request, tmp_path_factory, qwen3_tokenizer_dir, gemma3_tokenizer_dir) -> Iterator[Seeing]:
    """Start a stack for one of MODELS in float32."""
    folder = tmp_path_factory.mktemp("seeing")
    kind = MODELS[request.param]
    if request.param == "qwen2_5_vl":
        served = make_tiny_vlm(request.param, folder / request.param)
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(served, dtype=torch.float32)
        reference: Reference = ProcessorReference(model, served)
    elif kind is None:
        served = make_gemma3(folder / "gemma3", gemma3_tokenizer_dir)
        model = Gemma3ForConditionalGeneration.from_pretrained(served, dtype=torch.float32)
        reference = Gemma3Reference(model, served)
    else:
        language, layout, hidden_size, tower = kind
        made = make_internvl(
            folder / "whole",
            qwen3_tokenizer_dir,
            language,
            layout,
            hidden_size=hidden_size,
            image_size=TILE,
            tower=tower,
        )
        served = split_checkpoint(made.path, folder / "served")
        model = InternVLForConditionalGeneration.from_pretrained(made.reference, dtype=torch.float32)
        reference = InternVLReference(model, made.reference)
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    flags = ["--dtype", "float32", "--max-model-len", "2048", "--log-dir", str(folder / "logs"), *FREE_PORTS]
    with passing_stack([str(served), *flags], environment=environment) as stack:
        client = OpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=120, max_retries=0)
        yield Seeing(client, stack, None if kind is None else "<image>", reference)


def test_every_dialogue(seeing):
    answers = [seeing.check(dialogue) for dialogue in DIALOGUES.values()]
    assert len(set(answers)) == len(answers), "a model that says the same about everything proves nothing"


def test_concurrent_answers_equal_single_ones(seeing):
    chosen = list(DIALOGUES.values()) * 3
    with ThreadPoolExecutor(len(chosen)) as pool:
        answers = list(pool.map(lambda dialogue: seeing.answer(messages_of(dialogue, seeing.marker)), chosen))
    texts = [answer.choices[0].message.content for answer in answers]
    assert texts == [seeing.reference.answer(dialogue)[0] for dialogue in chosen]


def test_equal_images_share_the_prefix_cache_and_others_never(seeing):
    same: Dialogue = [(f"<image>\n{STORY}", [picture(120, 120, 20)])]
    other: Dialogue = [(f"<image>\n{STORY}", [picture(120, 120, 21)])]

    def cached(dialogue: Dialogue) -> int:
        messages = messages_of(dialogue, "<image>" if seeing.marker else None)
        # Before the text for every family: what is cached past the image is then cached for its sake.
        messages[0]["content"].reverse()
        return seeing.answer(messages).usage.prompt_tokens_details.cached_tokens

    # What precedes the image, such as a system prompt, fills whole blocks of the KV cache on GPUs, where they are small.
    before = seeing.tokenize([{"role": "user", "content": "a"}])["count"]
    assert before < 100
    assert cached(same) <= before
    hit = cached(same)
    assert hit >= 256
    assert cached(other) <= before
    assert cached(same) == hit


def test_streamed_as_whole(seeing):
    messages = messages_of(DIALOGUES["two images"], seeing.marker)
    chunks = seeing.answer(messages, stream=True)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == seeing.reference.answer(DIALOGUES["two images"])[0]


def test_responses(seeing):
    words, *parts = messages_of(DIALOGUES["two images"], seeing.marker)[0]["content"]
    content = [{"type": "input_text", "text": words["text"]}]
    content += [{"type": "input_image", "image_url": part["image_url"]["url"]} for part in parts]
    answer = seeing.client.responses.create(
        model="", input=[{"role": "user", "content": content}], temperature=0, max_output_tokens=NEW_TOKENS
    )
    assert answer.usage.input_tokens == seeing.reference.answer(DIALOGUES["two images"])[1]


def test_raw_triton_clients_send_encoded_bytes(seeing):
    """A text and raw files, without base64 and OpenAI messages."""
    if seeing.marker is None:
        pytest.skip("one family is enough: preprocessing reads these tensors alike for all")
    dialogue: Dialogue = DIALOGUES["one image"]
    text = seeing.reference.prompt(dialogue).replace("<IMG_CONTEXT>", "").replace("<img></img>", "<image>")
    file = io.BytesIO()
    WIDE.save(file, "WEBP", lossless=True)
    values = {
        "text_input": np.array([[text.encode()]], dtype=object),
        "images": np.array([[file.getvalue()]], dtype=object),
        "max_tokens": np.array([[NEW_TOKENS]], dtype=np.int32),
        "temperature": np.array([[0.0]], dtype=np.float32),
        "stream": np.array([[True]]),
    }
    inputs = []
    for name, value in values.items():
        dtype = {"O": "BYTES", "i": "INT32", "f": "FP32", "b": "BOOL"}[value.dtype.kind]
        inputs.append(grpcclient.InferInput(name, list(value.shape), dtype))
        inputs[-1].set_data_from_numpy(value)
    texts: list[str] = []
    with grpcclient.InferenceServerClient(seeing.stack.grpc_url) as triton:
        triton.start_stream(
            lambda result, error: texts.append(error or result.as_numpy("text_output").flatten()[0].decode())
        )
        triton.async_stream_infer("ensemble", inputs, parameters={"skip_special_tokens": False})
        triton.stop_stream()
    assert "".join(texts) == seeing.reference.answer(dialogue)[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
            "image",
        ),
        (
            [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": "ftp://example.com/a.png"}}],
            "URL",
        ),
        ([{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}], "file"),
        ([{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}}], "not allowed"),
    ],
)
def test_what_is_refused(seeing, content, words):
    with pytest.raises(BadRequestError) as error:
        seeing.answer([{"role": "user", "content": content}])
    assert words in error.value.body["message"]
    assert error.value.body["param"].startswith("messages")


def test_markers_that_do_not_match(seeing):
    if seeing.marker is None:
        pytest.skip("other families have no <image> markers: a part's place is its image's")
    # They are text, and the image comes first.
    seeing.answer(messages_of([("<image><image>", [SQUARE])], "<image>"))


def test_frames_as_the_request_says(seeing):
    film = {"url": f"data:video/mp4;base64,{base64.b64encode(video()).decode()}"}  # 23 frames, 10 per second

    def tokens(options: dict[str, Any], **fields: Any) -> int:
        part = {"type": "video_url", "video_url": {**film, **options}}
        return seeing.answer([{"role": "user", "content": [part]}], extra_body=fields).usage.prompt_tokens

    # Some processors take frames in pairs.
    two, four, six = (tokens({"num_frames": frames}) for frames in (2, 4, 6))
    assert 0 < four - two == six - four
    if six + (six - four) < 2048:  # Gemma 3's eight frames alone fill the context.
        assert tokens({}) == tokens({"num_frames": 8}) == six + (six - four)
    assert tokens({"num_frames": 4}, media_io_kwargs={"video": {"fps": 9}}) == four
    assert tokens({}, media_io_kwargs={"video": {"fps": 1.8}}) == tokens({"fps": 1.8}) == four
    with pytest.raises(BadRequestError, match="at most 128"):
        tokens({"num_frames": 129})


def test_pixels_as_the_request_says(seeing):
    if not isinstance(seeing.reference, ProcessorReference):
        pytest.skip("resizes all pictures to one size")
    dialogue = DIALOGUES["one image"]
    messages = messages_of(dialogue, seeing.marker)
    (part,) = (part for part in messages[0]["content"] if part["type"] == "image_url")
    usual = seeing.reference.answer(dialogue)
    # transformers itself takes no max_pixels alone.
    size = {"shortest_edge": 3136, "longest_edge": 5000}
    text, prompt_tokens, _ = seeing.reference.generate(seeing.reference.inputs(dialogue, size=size))
    assert prompt_tokens < usual[1]
    of_the_request = seeing.answer(messages, extra_body={"mm_processor_kwargs": {"max_pixels": 5000}})
    part["max_pixels"] = 5000
    of_the_part = seeing.answer(messages, extra_body={"mm_processor_kwargs": {"max_pixels": 9000}})
    for answer in (of_the_request, of_the_part):
        assert (answer.choices[0].message.content, answer.usage.prompt_tokens) == (text, prompt_tokens)


def test_what_the_models_own_processor_refuses(seeing):
    if not isinstance(seeing.reference, ProcessorReference):
        pytest.skip("has no processor of its own in preprocessing")
    narrow = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_url(picture(900, 2, 1))}}]}]
    with pytest.raises(BadRequestError, match="aspect ratio") as error:
        seeing.answer(narrow)
    assert error.value.body["param"] == "messages"


def test_damaged_features_are_the_clients_error(seeing):
    if not isinstance(seeing.reference, ProcessorReference):
        pytest.skip("takes no features")
    bytes_of_none = np.arange(100, dtype=np.uint8)[np.newaxis]
    assert engine_error(seeing, multimodal=bytes_of_none).param == "multimodal"
    # Whether memory has expired or was never there cannot be told; none of another process is read.
    for nowhere in ([1, 0, 100, 1], [os.getpid(), 0, 2**40, -1], [-1, -1, -1, -1]):
        assert engine_error(seeing, multimodal_memory=np.array([nowhere])).kind == "unavailable"
        # The engine takes the bytes if both are sent.
        both = engine_error(seeing, multimodal=bytes_of_none, multimodal_memory=np.array([nowhere]))
        assert both.param == "multimodal"
    seeing.check(DIALOGUES["one image"])


def engine_error(seeing: Seeing, **features: NDArray[Any]) -> RequestError:
    """What the engine says of features that are none."""
    inputs = []
    for name, value in {
        "input_ids": np.array([[1, 2, 3]], np.int32),
        "input_lengths": np.array([[3]], np.int32),
        "request_output_len": np.array([[4]], np.int32),
        **features,
    }.items():
        inputs.append(grpcclient.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype)))
        inputs[-1].set_data_from_numpy(value)
    errors: list[Any] = []
    with grpcclient.InferenceServerClient(seeing.stack.grpc_url) as triton:
        triton.start_stream(lambda result, error: errors.append(error))
        triton.async_stream_infer("tensorrt_llm", inputs)
        triton.stop_stream()
    error = RequestError.decode(str(errors[0]))
    assert error is not None, errors
    return error
