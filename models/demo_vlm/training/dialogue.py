# SPDX-License-Identifier: Apache-2.0
"""Encode dialogues as token ids, exactly as the server encodes its prompts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from models.demo_vlm.layout import SYSTEM_PROMPT, TOKENS_PER_TILE, VISION_CONFIG
from models.demo_vlm.naming import rename_image_tokens

_IMAGE = "".join(VISION_CONFIG[key] for key in ("image_start", "image_token", "image_end"))


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer, which is None if the model is to generate it."""

    question: str
    answer: str | None = None


class Encoder:
    """Encodes dialogues. Each image token of a tile becomes one IMG_CONTEXT id."""

    def __init__(self, checkpoint: Path) -> None:
        """Load the tokenizer of `checkpoint`, the language model's folder, under its original names."""
        content = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))
        self.tokenizer: Tokenizer = Tokenizer.from_str(json.dumps(rename_image_tokens(content)))
        self.image_id = self._id(VISION_CONFIG["image_token"])
        self.end_id = self._id("<|im_end|>")
        self._answer_start = [self._id("<|im_start|>"), *self._ids("assistant\n")]

    def encode(
        self, turns: Sequence[Turn], tiles: Sequence[int] = (), system: str = SYSTEM_PROMPT
    ) -> tuple[list[int], list[bool]]:
        """Returns (ids, whether each id is part of an answer). tiles: number for each image, all in the first turn."""
        short = self._ids(text(turns, len(tiles), system))
        ids: list[int] = []
        counts = iter(tiles)
        for token_id in short:
            ids += [token_id] * (next(counts) * TOKENS_PER_TILE if token_id == self.image_id else 1)
        return ids, self._is_answer(ids)

    def _is_answer(self, ids: list[int]) -> list[bool]:
        written = [False] * len(ids)
        inside = False
        for index in range(len(ids)):
            written[index] = inside
            if ids[index] == self.end_id:
                inside = False
            elif ids[index - len(self._answer_start) + 1 : index + 1] == self._answer_start:
                inside = True
        return written

    def _ids(self, words: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(words, add_special_tokens=False).ids
        return ids

    def _id(self, token: str) -> int:
        token_id = self.tokenizer.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return int(token_id)


def text(turns: Sequence[Turn], images: int, system: str = SYSTEM_PROMPT) -> str:
    """Write the prompt in ChatML, with one line for each image before the first question."""
    parts = [f"<|im_start|>system\n{system}<|im_end|>\n"]
    for index, turn in enumerate(turns):
        images_text = f"{_IMAGE}\n" * images if index == 0 else ""
        parts.append(f"<|im_start|>user\n{images_text}{turn.question}<|im_end|>\n<|im_start|>assistant\n")
        if turn.answer is not None:
            parts.append(f"{turn.answer}<|im_end|>\n")
    return "".join(parts)
