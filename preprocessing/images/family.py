# SPDX-License-Identifier: Apache-2.0
"""The bases of image families: from encoded files to pixels, or to features of them, and image tokens."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.chat.parts import Content, MediaPart, MediaRequest, Picture, Placed
from common.checks import PositionError
from common.errors import RequestError
from preprocessing.images.decode import ImageLimits, decode_image
from preprocessing.images.video import sample_frames

_NOTHING_ASKED = MediaRequest()


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """The operator's limits and choices for images.

    max_images: images and videos of one request. max_tiles: tiles of one request. video_frames: frames sampled from a
    video. max_tiles_per_image: overrides the checkpoint's value. pan_and_scan: Gemma 3's crops of long images.
    """

    limits: ImageLimits
    max_images: int = 64
    max_tiles: int = 128
    video_frames: int = 8
    max_tiles_per_image: int | None = None
    pan_and_scan: bool = False


@dataclass(frozen=True, slots=True)
class MediaPrompt:
    """The ids of a prompt with its pictures, and what the engine needs of them.

    pictures: for families with tiles, with extra_ids, one per id. features: uint8 [bytes] of the engine's own
    processor, as in engines/vllm/features.py.
    """

    input_ids: list[int]
    pictures: Sequence[Picture] = ()
    extra_ids: list[int] | None = None
    features: NDArray[np.uint8] | None = None


# Ids of a rendered prompt.
Encode = Callable[[str], list[int]]


class ImageFamily:
    """How one family takes images: their places in the text, and what becomes of them.

    A request goes through `place` (each message) and `build` (the rendered prompt).
    """

    # The output of the preprocessing model that carries the pixels or features.
    tensor: ClassVar[str]
    # The texts by which clients without media parts place an image.
    spelled: tuple[str, ...]
    # The tokens that only images may bring into a prompt.
    tokens: tuple[str, ...]

    def __init__(self, options: MediaOptions) -> None:
        self.options = options

    def place(self, content: Content, where: str) -> Placed:
        """Put a marker into a message's text for each media part. where: the message's position, for errors."""
        raise NotImplementedError

    def place_spelled(self, content: Content, where: str) -> Placed:
        """`place` for requests whose images have no media parts: `spelled` in a text is the place of one."""
        raise NotImplementedError

    def build(
        self,
        prompt: str,
        files: Sequence[bytes],
        parts: Sequence[MediaPart],
        max_tokens: int,
        encode: Encode,
        media_request: MediaRequest,
    ) -> MediaPrompt:
        """The ids and pictures of a rendered prompt of at most max_tokens, with one file per part.

        media_request: the options of the request for all of them.
        Raises RequestError naming the problem or the exceeded limit.
        """
        raise NotImplementedError

    def _check_files(self, files: Sequence[bytes], parts: Sequence[MediaPart]) -> None:
        """Raise RequestError unless there is a file for each part, and not too many."""
        if len(files) != len(parts):
            message = f"the messages have places for {len(parts)} images, but {len(files)} images were given"
            raise RequestError(message, param="messages")
        if len(files) > self.options.max_images:
            raise RequestError(f"a request may hold at most {self.options.max_images} images", param="messages")

    def _images(self, data: bytes, part: MediaPart) -> Iterator[Image.Image]:
        if part.kind == "video":
            yield from sample_frames(data, self.options.video_frames, self.options.limits)
        else:
            yield decode_image(data, self.options.limits)


class TiledImages(ImageFamily):
    """A family whose images are cut into tiles of one size here.

    A prompt goes through `load` (its files), `finish` (its text) and `expand` (its ids).
    """

    # The text of one picture in a rendered prompt before `finish`.
    marker: str

    def __init__(self, options: MediaOptions, token_id: int) -> None:
        """Create the family. token_id: the token that represents each run once, before `expand`."""
        super().__init__(options)
        self._token_id = token_id

    def build(
        self,
        prompt: str,
        files: Sequence[bytes],
        parts: Sequence[MediaPart],
        max_tokens: int,
        encode: Encode,
        media_request: MediaRequest,
    ) -> MediaPrompt:
        pictures = self.load(files, parts, max_tokens, media_request)
        input_ids, extra_ids = self.expand(encode(self.finish(prompt, pictures)), pictures)
        return MediaPrompt(input_ids, pictures, extra_ids)

    def load(
        self,
        files: Sequence[bytes],
        parts: Sequence[MediaPart],
        max_tokens: int,
        media_request: MediaRequest = _NOTHING_ASKED,
    ) -> list[Picture]:
        """Decode the files, one per part, and cut them into tiles, up to a prompt of max_tokens.

        media_request: the options of the request for all of them.
        Raises RequestError naming the problem or the exceeded limit.
        """
        self._check_files(files, parts)
        pictures: list[Picture] = []
        tiles = tokens = 0
        for data, part in zip(files, parts, strict=True):
            for index, image in enumerate(self._images(data, part)):
                picture = self._cut(image, part, _digest(data, index, part))
                tiles, tokens = tiles + len(picture.pixels), tokens + sum(picture.runs)
                if tiles > self.options.max_tiles:
                    message = (
                        f"the images of a request may be cut into at most {self.options.max_tiles} tiles (max_tiles)"
                    )
                    raise RequestError(message, param="messages")
                check_tokens(tokens, max_tokens)
                pictures.append(picture)
        return pictures

    def finish(self, prompt: str, pictures: Sequence[Picture]) -> str:
        """The rendered prompt with each marker in its final text, ready for the tokenizer."""
        return prompt

    def expand(self, input_ids: Sequence[int], pictures: Sequence[Picture]) -> tuple[list[int], list[int]]:
        """The ids with each picture's token repeated to its run, and as many extra ids (0 for text).

        Raises RequestError if the text itself spells the family's image token.
        """
        runs = [run for picture in pictures for run in zip(picture.runs, picture.extra_ids, strict=True)]
        if list(input_ids).count(self._token_id) != len(runs):
            raise RequestError("the messages spell a token that stands for images", param="messages")
        ids: list[int] = []
        extra_ids: list[int] = []
        following, row = iter(runs), 0
        for token_id in input_ids:
            if token_id == self._token_id:
                length, extra_id = next(following)
                ids += self._run(row, length)
                extra_ids += [extra_id] * length
                row += length
            else:
                ids.append(token_id)
                extra_ids.append(0)
        return ids, extra_ids

    def _run(self, row: int, length: int) -> Sequence[int]:
        """The ids of a run. row: the number of tokens in the runs before it."""
        return [self._token_id] * length

    def _cut(self, image: Image.Image, part: MediaPart, digest: hashlib.blake2b) -> Picture:
        raise NotImplementedError

    def _frames_text(self) -> str:
        """The text of a video: a line for each frame, as in the families' examples."""
        return "".join(f"Frame{number}: {self.marker}\n" for number in range(1, self.options.video_frames + 1))


def check_tokens(tokens: int, max_tokens: int) -> None:
    """Raise RequestError if images alone fill the context."""
    if tokens >= max_tokens:
        message = (
            f"This model's maximum context length is {max_tokens} tokens. "
            f"However, your images need at least {tokens} tokens."
        )
        raise RequestError(message, kind="context_length", param="messages")


def check_count(markers: int, parts: int, marker: str, where: str) -> None:
    """Raise RequestError if a message's markers and images differ in number."""
    if markers != parts:
        raise PositionError(where, f"has {markers} {marker} markers for {parts} images")


def extra_id(digest: hashlib.blake2b, piece: int = 0) -> int:
    """A 64-bit number above 0 for one run of a picture."""
    own = digest.copy()
    own.update(piece.to_bytes(4, "little"))
    return max(int.from_bytes(own.digest(), "little"), 1)


def _digest(data: bytes, frame: int, part: MediaPart) -> hashlib.blake2b:
    # The same file cut in another way gives other pixels.
    digest = hashlib.blake2b(f"{part.kind} {part.detail} {frame} ".encode(), digest_size=8)
    digest.update(data)
    return digest
