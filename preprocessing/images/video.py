# SPDX-License-Identifier: Apache-2.0
"""Frames of an encoded video, decoded from memory by PyAV (FFmpeg).

FFmpeg reads hundreds of formats, some of which open other files and URLs named in a video. Here it is limited to two
containers, recognised by their first bytes, to a few codecs, and to the bytes in memory. AVI is excluded: 7 KB of
damaged header made its reader take over 1 GB.
"""

import io
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, NoReturn, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from common.errors import RequestError
from preprocessing.images.decode import ImageLimits, media_error
from preprocessing.images.sampling import Sampling, VideoSource

NAMED_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg")
CODECS = (*NAMED_CODECS, "libdav1d")  # FFmpeg's decoder of av1

VideoPacket: TypeAlias = "Packet[VideoStream]"

# Rates of frames that are believed. A file can say anything.
_RATES = (0.001, 1000.0)
# The rate that transformers takes for a video that does not say it.
_UNKNOWN_RATE = 24.0

# A frame's rotation in degrees counterclockwise -> the transposition that makes it upright.
_UPRIGHT = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    -180: Image.Transpose.ROTATE_180,
    -90: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """Limits of one video.

    max_frames: frames in the file. max_duration: its length in seconds. timeout: seconds that sampling may take.
    max_total_pixels: pixels of all sampled frames together, which take 4 bytes each.
    """

    max_frames: int = 200_000
    max_duration: float = 3600.0
    timeout: float = 30.0
    max_total_pixels: int = 2**28


@dataclass(frozen=True, slots=True)
class Video:
    """Sampled frames of a video, mode RGB, upright. indices: the number of each in the video, counted from 0."""

    source: VideoSource
    indices: Sequence[int]
    frames: Sequence[Image.Image]

    def pixels(self) -> NDArray[np.uint8]:
        """All frames in the size of the first: uint8 [frames, height, width, 3]."""
        width, height = size = self.frames[0].size
        # Filled one by one, as all frames may take a gigabyte.
        pixels = np.empty((len(self.frames), height, width, 3), np.uint8)
        for number, frame in enumerate(self.frames):
            pixels[number] = frame if frame.size == size else frame.resize(size)
        return pixels

    def metadata(self) -> dict[str, Any]:
        """What vLLM's processors are told of a video, by which some write the time of each frame into the prompt."""
        return {
            "total_num_frames": self.source.frames,
            "fps": self.source.fps,
            "duration": self.source.duration,
            "video_backend": "pyav",
            "frames_indices": list(self.indices),
            # The processor shall not sample again.
            "do_sample_frames": False,
        }


def sample_video(data: bytes, sampling: Sampling, limits: ImageLimits, video: VideoLimits | None = None) -> Video:
    """Decode the frames that `sampling` chooses from an MP4/MOV or WebM/Matroska file.

    Raises RequestError (param "messages").
    """
    clock = _Clock((video or VideoLimits()).timeout)
    try:
        return _sample(data, sampling, limits, video or VideoLimits(), clock)
    except RequestError:
        raise
    except MemoryError:
        raise media_error("a video takes more memory to decode than there is") from None
    except Exception:  # Damaged bytes lead to errors of many types.
        raise media_error("a video is damaged or cut off and cannot be decoded") from None


def _sample(data: bytes, sampling: Sampling, limits: ImageLimits, video: VideoLimits, clock: "_Clock") -> Video:
    # FFmpeg's own limit protects its memory. It counts padded rows; each frame is checked exactly below.
    decoder_options = {"max_pixels": str(limits.max_pixels + 128 * limits.max_side)}
    options = {"codec_whitelist": ",".join(CODECS), "threads": "1"} | decoder_options
    kind = _container(data)
    count = 0

    def check_size(width: int, height: int) -> None:
        limits.check(width, height, "a video")
        if count * width * height > video.max_total_pixels:
            raise media_error(f"{count} frames of a video have more than {video.max_total_pixels} pixels together")

    with av.open(io.BytesIO(data), "r", format=kind, options=options, io_open=_no_other_file) as container:
        if not container.streams.video:
            raise media_error("a video has no pictures")
        stream = container.streams.video[0]
        context = stream.codec_context
        # A stream of an unknown codec has no decoder.
        if context is None or context.name not in CODECS:
            raise media_error(f"a video's codec is not one of {', '.join(NAMED_CODECS)}")
        check_size(context.width, context.height)
        packets = _packets(container, stream, video, clock)
        times = _presentation_times(packets)
        source = VideoSource(len(times), _rate(stream, times))
        indices = sampling(source)
        count = len(indices)
        check_size(context.width, context.height)
        # One thread: on a damaged HEVC file FFmpeg's threads deadlocked.
        context.options, context.thread_count = decoder_options, 1
        frames = _Frames(context, packets, check_size, clock).take([times[index] for index in indices])
        return Video(source, indices, frames)


class _Clock:
    """Limits the time that sampling may take, in seconds."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._end = time.monotonic() + limit

    def check(self) -> None:
        if time.monotonic() > self._end:
            raise media_error(f"a video takes longer than {self._limit:g} s to decode")


class _Frames:
    """Decodes the needed parts of a video. packets: all packets of the video, in decoding order."""

    def __init__(
        self,
        context: VideoCodecContext,
        packets: list[VideoPacket],
        check_size: Callable[[int, int], None],
        clock: _Clock,
    ) -> None:
        self._context = context
        self._packets = packets
        self._check_size = check_size
        self._clock = clock

    def take(self, times: Sequence[int]) -> list[Image.Image]:
        """The frames at these rising presentation times, decoding from the last keyframe before each."""
        keyframes = [at for at, packet in enumerate(self._packets) if packet.is_keyframe]
        keyframe_times = [_time(self._packets[at]) for at in keyframes]

        def start(wanted: int) -> int:
            earlier = bisect_right(keyframe_times, wanted)
            return keyframes[earlier - 1] if earlier else 0

        images: list[Image.Image] = []
        for begin, wanted in groupby(times, start):
            images += _take(self._decode(begin), wanted)
        return images

    def _decode(self, begin: int) -> Iterator[VideoFrame]:
        if self._context.is_open:
            self._context.flush_buffers()
        for packet in chain(self._packets[begin:], [None]):
            self._clock.check()
            for frame in self._context.decode(packet):
                # The size can change in the middle of a video.
                self._check_size(frame.width, frame.height)
                yield frame


def _take(frames: Iterator[VideoFrame], wanted: Iterable[int]) -> list[Image.Image]:
    """The first frame at or after each of the increasing times, or else the last frame."""
    images: list[Image.Image] = []
    frame: VideoFrame | None = None
    image: Image.Image | None = None
    for time_wanted in wanted:
        while (frame is None or (frame.pts or 0) < time_wanted) and (following := next(frames, None)) is not None:
            frame, image = following, None
        if frame is None:
            raise media_error("a video has no pictures")
        image = image or _image(frame)
        images.append(image)
    return images


def _image(frame: VideoFrame) -> Image.Image:
    image: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
    turn = _UPRIGHT.get(frame.rotation)
    return image if turn is None else image.transpose(turn)


def _packets(container: InputContainer, stream: VideoStream, video: VideoLimits, clock: _Clock) -> list[VideoPacket]:
    """All packets in decoding order; even frames that are not displayed may be needed to decode others."""
    packets: list[VideoPacket] = []
    for packet in container.demux(stream):
        clock.check()
        if packet.is_corrupt:
            raise media_error("a video is damaged or cut off and cannot be decoded")
        if packet.size:
            packets.append(packet)
        if len(packets) > video.max_frames:
            raise media_error(f"a video has more than {video.max_frames} frames")
    times = _presentation_times(packets)
    if not times:
        raise media_error("a video has no pictures")
    if (times[-1] - times[0]) * (stream.time_base or 0) > video.max_duration:
        raise media_error(f"a video is longer than {video.max_duration:g} s")
    return packets


def _presentation_times(packets: list[VideoPacket]) -> list[int]:
    """The sorted presentation times of the displayed frames, in units of the stream's time_base."""
    return sorted(_time(packet) for packet in packets if not packet.is_discard)


def _rate(stream: VideoStream, times: list[int]) -> float:
    """The frames per second that the file says or, if that cannot be, those between the first and the last frame."""
    low, high = _RATES
    said = float(stream.guessed_rate or 0)
    if low <= said <= high:
        return said
    seconds = float((times[-1] - times[0]) * (stream.time_base or 0))
    measured = (len(times) - 1) / seconds if seconds > 0 else 0
    return measured if low <= measured <= high else _UNKNOWN_RATE


def _time(packet: VideoPacket) -> int:
    return packet.pts if packet.pts is not None else packet.dts or 0


def _container(data: bytes) -> str:
    """The name of FFmpeg's demuxer for a container; raises RequestError for any other."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    raise media_error("a video is not MP4, MOV, WebM or Matroska")


def _no_other_file(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise PermissionError("a video must be in one piece")
