# SPDX-License-Identifier: Apache-2.0
"""Dialogues with pictures and a video for the tiny vision-language models, and transformers' answers to them."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.video_utils import VideoMetadata

from preprocessing.images.decode import ImageLimits
from preprocessing.images.sampling import evenly_spaced
from preprocessing.images.video import sample_video
from tests.support.tiny_vlms import TINY_VLMS, in_transformers_layout
from tests.support.videos import video

NEW_TOKENS = 12
# Few frames: transformers counts the positions after a longer video of Qwen2-VL otherwise than its authors and vLLM.
FRAMES = 4


@dataclass(frozen=True)
class Medium:
    """A picture or video of a dialogue, as a file."""

    kind: str
    data: bytes

    def url(self) -> str:
        mime = "image/png" if self.kind == "image" else "video/mp4"
        return f"data:{mime};base64,{base64.b64encode(self.data).decode()}"


def picture(seed: int, width: int = 100, height: int = 80) -> Medium:
    """A PNG of soft colour patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG")
    return Medium("image", file.getvalue())


CLIP = Medium("video", video(frames=20, size=(128, 96)))


def decoded(medium: Medium) -> Any:
    """A picture, or the frames of a video (uint8 [frames, height, width, 3]) with vLLM's metadata."""
    if medium.kind == "image":
        return Image.open(io.BytesIO(medium.data))
    sampled = sample_video(medium.data, lambda source: evenly_spaced(source.frames, FRAMES), ImageLimits())
    return sampled.pixels(), sampled.metadata()


# By name: the turns of a dialogue, user first; each of texts and media.
Dialogue = Sequence[Sequence[str | Medium]]
DIALOGUES: dict[str, Dialogue] = {
    "picture": [[picture(1), "What is this?"]],
    "another picture": [[picture(2), "What is this?"]],
    "no picture": [["What is a picture?"]],
    "two pictures in a text": [["First", picture(3), "and second", picture(4, 60, 120), "differ how?"]],
    "turns": [[picture(5), "Look."], ["Yes."], [picture(6, 130, 70), "And this?"], ["No."], ["Why?"]],
    "video": [[CLIP, "What happens?"]],
    "video and picture": [[CLIP, picture(7), "Is it in it?"]],
}


def dialogues_of(family: str) -> list[str]:
    """The names of the dialogues that a family can have."""
    tiny = TINY_VLMS[family]
    return [
        name
        for name, turns in DIALOGUES.items()
        if tiny.video or not any(medium.kind == "video" for medium in media_of(turns))
    ]


def media_of(dialogue: Dialogue) -> list[Medium]:
    return [piece for turn in dialogue for piece in turn if isinstance(piece, Medium)]


def messages_of(dialogue: Dialogue) -> list[dict[str, Any]]:
    """The messages of OpenAI's API."""

    def part(piece: str | Medium) -> dict[str, Any]:
        if isinstance(piece, str):
            return {"type": "text", "text": piece}
        return {"type": f"{piece.kind}_url", f"{piece.kind}_url": {"url": piece.url()}}

    roles = ("user", "assistant")
    return [
        {"role": roles[number % 2], "content": [part(piece) for piece in turn]} for number, turn in enumerate(dialogue)
    ]


@dataclass(frozen=True)
class Answer:
    """Greedy tokens. prompt_ids: with those of the pictures. margins: of each token's logit above the next best."""

    prompt_ids: list[int]
    ids: list[int]
    margins: list[float]

    def clear_ids(self, margin: float) -> list[int]:
        """The tokens before the first that rounding may decide."""
        unclear = (number for number, one in enumerate(self.margins) if one < margin)
        return self.ids[: next(unclear, len(self.ids))]


class VlmReference:
    """A tiny model in transformers."""

    def __init__(self, folder: Path, family: str) -> None:
        """Load the processor; the model is loaded for the first answer. folder: as `make_tiny_vlm` has made it."""
        self._folder, self._tiny = in_transformers_layout(folder), TINY_VLMS[family]
        self.processor = transformers.AutoProcessor.from_pretrained(self._folder)

    @cached_property
    def _model(self) -> Any:
        dtype = torch.bfloat16 if self._tiny.bfloat16 else torch.float32
        return getattr(transformers, self._tiny.model).from_pretrained(self._folder, dtype=dtype).eval()

    def prompt(self, dialogue: Dialogue) -> str:
        """The rendered chat template."""
        messages = [
            {
                "role": ("user", "assistant")[number % 2],
                "content": [
                    {"type": "text", "text": piece} if isinstance(piece, str) else {"type": piece.kind}
                    for piece in turn
                ],
            }
            for number, turn in enumerate(dialogue)
        ]
        # Phi-4-multimodal's processor does not load it.
        template = (self._folder / "chat_template.jinja").read_text(encoding="utf-8")
        text: str = self.processor.apply_chat_template(messages, template, tokenize=False, add_generation_prompt=True)
        return text

    def inputs(self, dialogue: Dialogue) -> Any:
        """What transformers' processor makes of the dialogue."""
        given: dict[str, Any] = {}
        for medium in media_of(dialogue):
            if medium.kind == "image":
                given.setdefault("images", []).append(decoded(medium))
            else:
                frames, facts = decoded(medium)
                given["do_sample_frames"] = facts.pop("do_sample_frames")
                given.setdefault("videos", []).append(frames)
                given.setdefault("video_metadata", []).append(VideoMetadata(**facts))
        prompt = self.prompt(dialogue)
        return self.processor(text=[prompt], return_tensors="pt", add_special_tokens=False, **given)

    def prompt_ids(self, dialogue: Dialogue) -> list[int]:
        """The prompt with the tokens of its media."""
        ids: list[int] = self.inputs(dialogue)["input_ids"][0].tolist()
        return ids

    def answer(self, dialogue: Dialogue) -> Answer:
        inputs = self.inputs(dialogue)
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            written = self._model.generate(
                **inputs,
                max_new_tokens=NEW_TOKENS,
                do_sample=False,
                eos_token_id=None,
                output_logits=True,
                return_dict_in_generate=True,
            )
        first, second = torch.stack(written.logits)[:, 0].float().topk(2).values.T
        ids = written.sequences[0, length:].tolist()
        return Answer(inputs["input_ids"][0].tolist(), ids, (first - second).tolist())


def chat_json(dialogue: Dialogue) -> str:
    """The request of `preprocessing`, to which the files are given separately."""
    messages = messages_of(dialogue)
    for message in messages:
        for part in message["content"]:
            for kind in ("image_url", "video_url"):
                if kind in part:
                    part[kind] = {}
    return json.dumps({"messages": messages})
