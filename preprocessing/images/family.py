# SPDX-License-Identifier: Apache-2.0
"""The bases of image families: from encoded files to pixels, or to features of them, and image tokens."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from PIL import Image

from common.chat.parts import SAMPLED, Content, MediaPart, MediaRequest, Picture, Placed
from common.checks import PositionError
from common.errors import RequestError
from preprocessing.images.decode import ImageLimits, decode_image, media_error
from preprocessing.images.request_limits import RequestLimits, unscoped
from preprocessing.images.sampling import VideoSource, frame_count, segment_centres
from preprocessing.images.video import Video, sample_video

# The frames of a video that a request may ask for, unless the operator says how many.
MAX_VIDEO_FRAMES = 128
_NOTHING_ASKED = MediaRequest()


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """The operator's limits and choices for images.

    max_images: images and videos of one request. max_tiles: tiles of one request. video_frames: frames sampled from a
    video if the request does not say how many. max_video_frames: the most that it may ask for. max_resized_pixels: the
    most pixels to which a request may have an image resized. max_tiles_per_image: overrides the checkpoint's value.
    pan_and_scan: Gemma 3's crops of long images.
    """

    limits: ImageLimits
    max_images: int = 64
    max_tiles: int = 128
    video_frames: int = 8
    max_video_frames: int = MAX_VIDEO_FRAMES
    max_resized_pixels: int = 2**24
    max_tiles_per_image: int | None = None
    pan_and_scan: bool = False


@dataclass(frozen=True, slots=True)
class MediaPrompt:
    """The ids of a prompt with its pictures, and what the engine needs of them.

    pictures: for families with tiles, with extra_ids, one per id. features: of the engine's own processor, bytes in
    pieces, as in engines/vllm/features.py.
    """

    input_ids: list[int]
    pictures: Sequence[Picture] = ()
    extra_ids: list[int] | None = None
    features: Sequence[memoryview] | None = None


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
        pieces = options.max_tiles_per_image or options.max_tiles
        self.request_limits = RequestLimits(options.max_video_frames, options.max_resized_pixels, pieces)

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

    def _check(self, files: Sequence[bytes], parts: Sequence[MediaPart], media_request: MediaRequest) -> None:
        """Raise RequestError unless there is a file for each part, not too many, and nothing above a limit is asked."""
        if len(files) != len(parts):
            message = f"the messages have places for {len(parts)} images, but {len(files)} images were given"
            raise RequestError(message, param="messages")
        if len(files) > self.options.max_images:
            raise RequestError(f"a request may hold at most {self.options.max_images} images", param="messages")
        self.request_limits.check(media_request, parts)

    def _sample(self, data: bytes, asked: Mapping[str, Any]) -> Video:
        """The frames of a video that the request asks for. asked: as MediaRequest.sampling returns it."""
        options = self.options

        def sampling(source: VideoSource) -> Sequence[int]:
            count = frame_count(source, asked, options.video_frames, options.max_video_frames)
            return self._frame_indices(source, count, asked)

        return sample_video(data, sampling, options.limits)

    def _frame_indices(self, source: VideoSource, count: int, asked: Mapping[str, Any]) -> Sequence[int]:
        """The rising indices of the frames to take from a video, usually `count` of them."""
        raise NotImplementedError


class TiledImages(ImageFamily):
    """A family whose images are cut into tiles of one size here.

    A prompt goes through `load` (its files), `finish` (its text) and `expand` (its ids).
    """

    # The texts of one picture and of one video in a rendered prompt before `finish`.
    marker: str
    video_marker: str
    # The options of common.chat.media that the family takes, besides those of sampling.
    taken: ClassVar[tuple[str, ...]] = ()

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
        self._check(files, parts, media_request)
        pictures: list[Picture] = []
        tiles = tokens = 0
        for data, part in zip(files, parts, strict=True):
            options = media_request.flat_options(part)
            for number, (index, image) in enumerate(self._images(data, part, media_request), 1):
                picture = self._cut(image, part, options, _digest(data, index, part, options))
                if part.kind == "video":
                    picture = replace(picture, frame=number)
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
        """The rendered prompt with each marker in its final text, ready for the tokenizer.

        A video becomes a line for each frame, as in the families' examples.
        """
        before, *after = prompt.split(self.video_marker)
        frames = [picture.frame for picture in pictures if picture.frame]
        # The last frame of a video is the one before the first of the next.
        counts = [count for count, following in zip(frames, [*frames[1:], 1], strict=False) if following == 1]
        check_count(len(after), len(counts), "video", "messages")
        return before + "".join(self._lines(count) + text for count, text in zip(counts, after, strict=True))

    def _lines(self, frames: int) -> str:
        return "\n".join(f"Frame{number}: {self.marker}" for number in range(1, frames + 1))

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

    def _cut(self, image: Image.Image, part: MediaPart, options: Mapping[str, Any], digest: hashlib.blake2b) -> Picture:
        raise NotImplementedError

    def _check(self, files: Sequence[bytes], parts: Sequence[MediaPart], media_request: MediaRequest) -> None:
        super()._check(files, parts, media_request)
        takes = f"which this model does not take; it takes {', '.join(self.taken) or 'none'}"
        for name, _ in unscoped(media_request.processor):
            if name.rpartition(".")[2] not in self.taken:
                raise PositionError("mm_processor_kwargs", f"has '{name}', {takes}")
        for part in parts:
            for name in part.options:
                if name not in SAMPLED and name not in self.taken:
                    raise media_error(f"an option is '{name}', {takes}")

    def _images(self, data: bytes, part: MediaPart, media_request: MediaRequest) -> Iterator[tuple[int, Image.Image]]:
        """The image of a file, or the frames of a video with their indices in it."""
        if part.kind == "image":
            yield 0, decode_image(data, self.options.limits)
        else:
            video = self._sample(data, media_request.sampling(part))
            yield from zip(video.indices, video.frames, strict=True)

    def _frame_indices(self, source: VideoSource, count: int, asked: Mapping[str, Any]) -> Sequence[int]:
        return segment_centres(source.frames, count)


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


def _digest(data: bytes, frame: int, part: MediaPart, options: Mapping[str, Any]) -> hashlib.blake2b:
    # The same file cut in another way gives other pixels.
    cut = f"{part.kind} {part.detail} {sorted(options.items())} {frame} "
    digest = hashlib.blake2b(cut.encode(), digest_size=8)
    digest.update(data)
    return digest
