# SPDX-License-Identifier: Apache-2.0
"""Prompts of ordinary words with an exact number of tokens, rendered with the model's own chat template."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
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
from python_backend.config import ModelParameters

Messages = tuple[dict[str, Any], ...]
# Enough words that no two prompts begin alike, few enough to be found quickly.
_WORDS = 4000
_ATTEMPTS = 12


class PromptMaker:
    """Makes prompts for one checkpoint."""

    def __init__(
        self,
        folder: Path,
        max_model_len: int,
        *,
        styler: str | None = None,
        max_tiles_per_image: int | None = None,
        preprocessing: Mapping[str, str] | None = None,
    ) -> None:
        """Load a checkpoint's tokenizer and template. Raises ValueError if it is not a valid checkpoint.

        folder: of the checkpoint as it is served. styler, max_tiles_per_image: the stack's options, if set.
        preprocessing: parameters of the stack's model of that name, which choose the path of pictures.
        """
        checkpoint, tokenizer = Checkpoint.load(folder), ChatTokenizer.load(folder)
        options = MediaOptions(ImageLimits(), max_tiles_per_image=max_tiles_per_image)
        images = find_images(checkpoint, tokenizer, options, ModelParameters("preprocessing", preprocessing or {}))
        self._builder = PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint, styler), max_model_len, images)
        self.max_model_len = max_model_len
        self.takes_images = images is not None
        self.words = usual_words(tokenizer)

    def build(self, messages: Messages, images: Sequence[bytes] = ()) -> EngineInput:
        """Build the engine's input as the stack does; raises ValueError if it would refuse the messages."""
        try:
            return self._builder.build(PromptRequest(messages=json.dumps({"messages": messages}), images=tuple(images)))
        except RequestError as error:
            raise ValueError(str(error)) from None

    def text(self, count: int, chooser: random.Random) -> str:
        """A text of that many words."""
        return " ".join(chooser.choices(self.words, k=count))

    def fit(self, make: Callable[[str], Messages], tokens: int, salt: int, seed: int) -> tuple[Messages, list[int]]:
        """Make messages whose prompt has exactly `tokens` tokens; returns them and the ids.

        make: builds the messages from a text. Prompts of one seed have the same words except for the first three,
        which the salt chooses: a prefix cache that has a prompt of another salt cannot use it. Raises ValueError if no
        text gives that length.
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
    """Words that are one token each after a space; short syllables if the vocabulary has too few of them."""
    words: list[str] = []
    for token_id in range(tokenizer.backend.get_vocab_size()):
        text = tokenizer.backend.decode([token_id], skip_special_tokens=False).strip()
        usual = 3 <= len(text) <= 9 and text.isascii() and text.isalpha() and text.islower()
        # Between other words, as in a prompt: tokenizers treat the beginning of a text specially.
        if usual and len(tokenizer.encode(f"a {text} a", False)) == len(tokenizer.encode("a a", False)) + 1:
            words.append(text)
        if len(words) == _WORDS:
            break
    return words if len(words) >= 50 else [first + second for first in "bdfgklmnprst" for second in "aeiou"]
