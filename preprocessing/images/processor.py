# SPDX-License-Identifier: Apache-2.0
"""Images and videos of any family whose processor vLLM has: features for the engine, made by the model's processor.

Their tokens, and everything else that is particular to a family, is the processor's.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.chat.content_form import KINDS, fill_marks
from common.chat.messages import join_texts
from common.chat.parts import Content, Kind, MediaPart, MediaRequest, Placed
from common.errors import RequestError
from common.tokenizer import ChatTokenizer
from engines.vllm.processor import Filled, MediaProcessor, Medium
from preprocessing.images.decode import decode_image, media_error
from preprocessing.images.family import Encode, MediaOptions, MediaPrompt, check_tokens
from preprocessing.images.marked import MarkedImages, shrink_to_low_detail
from preprocessing.images.sampling import VideoSource, evenly_spaced
from python_backend.config import ModelParameters

# The limit that Qwen-VL's processors have themselves.
_MAX_ASPECT_RATIO = 200


class ProcessorImages(MarkedImages):
    """Any family: its own processor makes the features and tokens of each picture."""

    def __init__(self, processor: MediaProcessor, tokenizer: ChatTokenizer, options: MediaOptions) -> None:
        """Create the family. processor: that of the checkpoint, in this process."""
        super().__init__(options)
        self.request_limits = replace(self.request_limits, areas=processor.sizes_by_area())
        self._processor = processor
        self._limits: Mapping[Kind, int] = {kind: processor.limit(kind) for kind in KINDS}
        kinds = [kind for kind in KINDS if self._limits[kind]]
        texts = [processor.placeholder(kind, 1) for kind in kinds]
        tokens = tokenizer.backend.get_added_tokens_decoder()
        added = [token.content for token in tokens.values()]
        # By id; the last element is for all greater ids.
        self._is_added = np.zeros(max(tokens, default=0) + 2, np.bool_)
        self._is_added[list(tokens)] = True
        # A client without media parts writes the model's own placeholders, and so their tokens. Blanks are no markup.
        written = (token for token in added if token.strip() and any(token in text for text in texts))
        self.tokens = self.spelled = tuple(written)
        self._spelled = re.compile("|".join(f"({_numbered(processor, kind)})" for kind in kinds) or "(?!)")
        self._kinds = kinds

    @classmethod
    def load(cls, tokenizer: ChatTokenizer, options: MediaOptions, parameters: ModelParameters) -> "ProcessorImages":
        """Load the checkpoint's processor; raises ValueError for a wrong option."""
        return cls(MediaProcessor.load(parameters), tokenizer, options)

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
        self._check(files, parts, media_request)
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
        is_added = self._is_added.take(filled.input_ids, mode="clip")
        for start, length in filled.places:
            is_added[start : start + length] = False
        if is_added.sum() > self._is_added.take(before, mode="clip").sum():
            raise RequestError("the messages spell a token that stands for images", param="messages")

    def _media(
        self, files: Sequence[bytes], parts: Sequence[MediaPart], media_request: MediaRequest
    ) -> Iterator[Medium]:
        for data, part in zip(files, parts, strict=True):
            # Not every processor in vLLM reads options in scopes, such as `images_kwargs`.
            options = media_request.flat_options(part)
            if part.kind == "video":
                asked = media_request.sampling(part)
                yield Medium("video", _key(data, asked, options), partial(self._load_video, data, asked), options)
            else:
                low = part.detail == "low"
                yield Medium("image", _key(data, low, options), partial(self._load_image, data, low), options)

    def _load_image(self, data: bytes, low: bool) -> Image.Image:
        image = decode_image(data, self.options.limits)
        _check_shape(image, "an image")
        if low:
            shrink_to_low_detail(image)
        return image

    def _load_video(self, data: bytes, asked: Mapping[str, Any]) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        video = self._sample(data, asked)
        _check_shape(video.frames[0], "a video")
        return video.pixels(), video.metadata()

    def _frame_indices(self, source: VideoSource, count: int, asked: Mapping[str, Any]) -> Sequence[int]:
        fps, at_rate = asked.get("fps", -1), self._processor.frames_at_rate
        if at_rate is None or fps == -1:
            return evenly_spaced(source.frames, count)
        number = asked.get("num_frames", -1)
        most = self.options.max_video_frames if number == -1 else number
        return at_rate(source.frames, source.fps, fps, most) or evenly_spaced(source.frames, count)


def _check_shape(image: Image.Image, what: str) -> None:
    """Raise RequestError for a strip, which processors that set the shorter side would make as large as the memory."""
    if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
        width, height = image.size
        raise media_error(f"{what} of {width} x {height} has an aspect ratio above {_MAX_ASPECT_RATIO}")


def _key(data: bytes, *loaded: Any) -> str:
    """A name of a picture's features, the same only for the same file, and for what it is loaded and processed with."""
    digest = hashlib.blake2b(json.dumps(loaded, sort_keys=True).encode(), digest_size=16)
    digest.update(data)
    return digest.hexdigest()


def _numbered(processor: MediaProcessor, kind: Kind) -> str:
    """A pattern of a kind's placeholders, of any number."""
    first, second = (processor.placeholder(kind, number) for number in (1, 2))
    return re.escape(first) if first == second else re.escape(first).replace("1", "[0-9]+")
