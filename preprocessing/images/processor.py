# SPDX-License-Identifier: Apache-2.0
"""Images and videos of any family whose processor vLLM has: features for the engine, made by the model's processor.

The chat template places them, in its own form (common.chat.content_form). Their tokens, and everything else that is
particular to a family, is the processor's.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from common.chat.content_form import KINDS, fill_marks, marked_text
from common.chat.messages import join_texts
from common.chat.parts import Content, Kind, MediaPart, MediaRequest, Placed
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from engines.vllm.processor import Filled, MediaProcessor, Medium
from preprocessing.images.family import Encode, ImageFamily, MediaOptions, MediaPrompt, check_tokens
from python_backend.config import ModelParameters


class ProcessorImages(ImageFamily):
    """Any family: its own processor makes the features and tokens of each picture."""

    tensor = "multimodal"

    def __init__(self, processor: MediaProcessor, tokenizer: ChatTokenizer, options: MediaOptions) -> None:
        """Create the family. processor: that of the checkpoint, in this process."""
        super().__init__(options)
        self._processor = processor
        self._limits: Mapping[Kind, int] = {kind: processor.limit(kind) for kind in KINDS}
        kinds = [kind for kind in KINDS if self._limits[kind]]
        texts = [processor.placeholder(kind, 1) for kind in kinds]
        added = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
        self._added = np.array([tokenizer.token_id(token) for token in added], np.int64)
        # A client without media parts writes the model's own placeholders, and so their tokens.
        self.tokens = self.spelled = tuple(token for token in added if any(token in text for text in texts))
        self._spelled = re.compile("|".join(f"({_numbered(processor, kind)})" for kind in kinds) or "(?!)")
        self._kinds = kinds

    @classmethod
    def load(cls, tokenizer: ChatTokenizer, options: MediaOptions, parameters: ModelParameters) -> "ProcessorImages":
        """Load the checkpoint's processor; raises ValueError for a wrong option."""
        return cls(MediaProcessor.load(parameters), tokenizer, options)

    def place(self, content: Content, where: str) -> Placed:
        return Placed(marked_text(content), tuple(part for part in content if isinstance(part, MediaPart)))

    def place_spelled(self, content: Content, where: str) -> Placed:
        text = join_texts(content)
        parts = (MediaPart(self._kinds[(found.lastindex or 1) - 1]) for found in self._spelled.finditer(text))
        return Placed(text, tuple(parts))

    def build(
        self,
        prompt: str,
        files: Sequence[bytes],
        parts: Sequence[MediaPart],
        max_tokens: int,
        encode: Encode,
        media_request: MediaRequest,
    ) -> MediaPrompt:
        self._check_files(files, parts)
        self._check_kinds(parts)
        media, tokens = [], 0
        for medium in self._media(files, parts, media_request):
            media.append(self._processor.process(medium))
            tokens += media[-1].tokens
            check_tokens(tokens, max_tokens)
        ids = encode(fill_marks(prompt, self._processor.placeholder))
        filled = self._processor.fill(ids, media)
        self._check_spelled(ids, filled)
        return MediaPrompt(filled.input_ids, features=filled.features)

    def _check_kinds(self, parts: Sequence[MediaPart]) -> None:
        for kind, limit in self._limits.items():
            if sum(part.kind == kind for part in parts) > limit:
                most = f"at most {limit} {kind}s in a request" if limit else f"no {kind}s"
                raise RequestError(f"messages: the served model takes {most}", param="messages")

    def _check_spelled(self, before: list[int], filled: Filled) -> None:
        """Raise RequestError if a text that spells a token has become that token.

        vLLM takes the prompt apart and encodes it again if a family's placeholder is not a token of its own.
        """
        outside = np.array(filled.input_ids)
        for start, length in filled.places:
            outside[start : start + length] = -1
        if np.isin(outside, self._added).sum() > np.isin(before, self._added).sum():
            raise RequestError("the messages spell a token that stands for images", param="messages")

    def _media(
        self, files: Sequence[bytes], parts: Sequence[MediaPart], media_request: MediaRequest
    ) -> Iterator[Medium]:
        for data, part in zip(files, parts, strict=True):
            options = _options(media_request.processor_options(part), part.kind)
            yield Medium(part.kind, _key(data, part.kind, options), partial(self._decode, data, part), options)

    def _decode(self, data: bytes, part: MediaPart) -> Any:
        images = list(self._images(data, part))
        if part.kind == "image":
            return images[0]
        count = len(images)
        metadata = {
            "total_num_frames": count,
            "fps": 1.0,
            "duration": float(count),
            "frames_indices": list(range(count)),
            "video_backend": "pyav",
            "do_sample_frames": False,
        }
        return np.stack([np.asarray(image) for image in images]), metadata


def _options(given: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The options of one picture, without scopes: not every processor in vLLM reads `images_kwargs`."""
    own = given.get(f"{kind}s_kwargs", {})
    return {name: value for name, value in given.items() if not name.endswith("_kwargs")} | own


def _key(data: bytes, kind: Kind, options: Mapping[str, Any]) -> str:
    """A name of a picture's features, the same only for the same file and options."""
    digest = hashlib.blake2b(json.dumps([kind, options], sort_keys=True).encode(), digest_size=16)
    digest.update(data)
    return digest.hexdigest()


def _numbered(processor: MediaProcessor, kind: Kind) -> str:
    """A pattern of a kind's placeholders, of any number."""
    first, second = (processor.placeholder(kind, number) for number in (1, 2))
    return re.escape(first) if first == second else re.escape(first).replace("1", "[0-9]+")
