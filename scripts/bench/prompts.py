# SPDX-License-Identifier: Apache-2.0
"""Prompts of exactly so many tokens, of ordinary words, rendered as the served model renders them."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MediaOptions
from preprocessing.images.registry import find_images
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest

Messages = tuple[dict[str, Any], ...]
# Enough that no two prompts begin alike, few enough to be found quickly.
_WORDS = 4000
_ATTEMPTS = 12


class PromptMaker:
    """Makes prompts for one checkpoint."""

    def __init__(
        self, folder: Path, max_model_len: int, *, styler: str | None = None, max_tiles_per_image: int | None = None
    ) -> None:
        """folder: of the checkpoint as it is served. styler, max_tiles_per_image: what the stack was told, if it was.

        Raises ValueError for a checkpoint that is none.
        """
        checkpoint, tokenizer = Checkpoint.load(folder), ChatTokenizer.load(folder)
        options = MediaOptions(ImageLimits(), max_tiles_per_image=max_tiles_per_image)
        images = find_images(checkpoint, tokenizer, options)
        self._builder = PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint, styler), max_model_len, images)
        self.max_model_len = max_model_len
        self.takes_images = images is not None
        self.words = usual_words(tokenizer)

    def build(self, messages: Messages, images: Sequence[bytes] = ()) -> EngineInput:
        """What the stack makes of the messages; raises ValueError where it would refuse them."""
        try:
            return self._builder.build(PromptRequest(messages=json.dumps({"messages": messages}), images=tuple(images)))
        except RequestError as error:
            raise ValueError(str(error)) from None

    def text(self, count: int, chooser: random.Random) -> str:
        """That many words."""
        return " ".join(chooser.choices(self.words, k=count))

    def fit(self, make: Callable[[str], Messages], tokens: int, salt: int, seed: int) -> tuple[Messages, list[int]]:
        """(messages, ids) of exactly `tokens` tokens. make: from a text to the messages that hold it.

        Prompts of one seed are of the same words but for the first three, which the salt chooses: so a prompt is new
        to a prefix cache that has seen it with another salt. Raises ValueError where no text gives that length.
        """
        first = self.text(3, random.Random(salt))  # nosec B311 # no secret is drawn
        words = random.Random(seed).choices(self.words, k=tokens)  # nosec B311 # no secret is drawn
        least = len(self.build(make(first)).input_ids)
        count = tokens - least
        for _ in range(_ATTEMPTS):
            if not 0 <= count <= len(words):
                break
            messages = make(" ".join([first, *words[:count]]))
            ids = self.build(messages).input_ids
            if len(ids) == tokens:
                return messages, ids
            count += tokens - len(ids)
        raise ValueError(
            f"no prompt of exactly {tokens} tokens can be made for this model; its shortest has about {least}"
        )


def usual_words(tokenizer: ChatTokenizer) -> list[str]:
    """Words that are one token each after a space; short syllables where the vocabulary has too few of them."""
    words: list[str] = []
    for token_id in range(tokenizer.backend.get_vocab_size()):
        text = tokenizer.backend.decode([token_id], skip_special_tokens=False).strip()
        usual = 3 <= len(text) <= 9 and text.isascii() and text.isalpha() and text.islower()
        # Between others, as it will stand: tokenizers treat the beginning of a text in their own ways.
        if usual and len(tokenizer.encode(f"a {text} a", False)) == len(tokenizer.encode("a a", False)) + 1:
            words.append(text)
        if len(words) == _WORDS:
            break
    return words if len(words) >= 50 else [first + second for first in "bdfgklmnprst" for second in "aeiou"]
