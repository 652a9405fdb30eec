# SPDX-License-Identifier: Apache-2.0
"""Frames of videos, against a plain decode of the whole video."""

import io
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from vllm.multimodal.video import VideoBackend

from common.errors import RequestError
from preprocessing.images.decode import ImageLimits
from preprocessing.images.sampling import evenly_spaced, frame_count, segment_centres
from preprocessing.images.video import Video, VideoLimits, _no_other_file, sample_video
from tests.support.videos import video

LIMITS = ImageLimits()
KINDS = [("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"), ("webm", "libvpx-vp9"), ("webm", "libvpx")]
KINDS += [("mp4", "libsvtav1"), ("mp4", "libx265")]


def sample_frames(
    data: bytes, count: int, limits: ImageLimits, video_limits: VideoLimits | None = None
) -> list[Image.Image]:
    """The frames at the centres of `count` segments."""
    return list(sample_video(data, lambda source: segment_centres(source.frames, count), limits, video_limits).frames)


def sample(data: bytes, **asked: float) -> Video:
    """The frames that vLLM's loader would take."""
    count = lambda source: frame_count(source, asked, 8, 128)  # noqa: E731
    return sample_video(data, lambda source: evenly_spaced(source.frames, count(source)), LIMITS)


def every_frame(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as container:
        return [np.asarray(frame.to_image()) for frame in container.decode(video=0)]


def refused(data: bytes, count: int = 4, limits: ImageLimits = LIMITS, **video_limits: float) -> str:
    with pytest.raises(RequestError) as caught:
        sample_frames(data, count, limits, VideoLimits(**video_limits))
    assert caught.value.param == "messages" and caught.value.kind == "invalid_request"
    return caught.value.message


@pytest.mark.parametrize("count", [1, 3, 8, 23, 40])
@pytest.mark.parametrize(("kind", "codec"), KINDS)
def test_the_frames_are_those_of_a_whole_decode(kind: str, codec: str, count: int) -> None:
    data = video(kind, codec)
    frames = every_frame(data)
    assert len(frames) == 23
    sampled = sample_frames(data, count, LIMITS)
    assert [image.mode for image in sampled] == ["RGB"] * count
    for image, index in zip(sampled, segment_centres(len(frames), count), strict=True):
        assert np.array_equal(np.asarray(image), frames[index])


@pytest.mark.parametrize("structure", ["open-gop=1:bframes=3:b-adapt=0", "open-gop=0:bframes=0", "keyint=1"])
def test_whatever_the_frames_refer_to(structure: str) -> None:
    data = video(frames=40, options=(("x264-params", structure),))
    frames = every_frame(data)
    for count in (2, 5, 17):
        sampled = sample_frames(data, count, LIMITS)
        for image, index in zip(sampled, segment_centres(len(frames), count), strict=True):
            assert np.array_equal(np.asarray(image), frames[index])


@pytest.mark.parametrize("start", [5, 9])
def test_frames_that_an_edit_list_hides_do_not_count(start: int) -> None:
    """Trims a video as phones do, without encoding its frames again."""
    data = bytearray(video())
    at = data.index(b"elst") + 16
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 1024 * start).to_bytes(4, "big")
    frames = every_frame(bytes(data))
    assert len(frames) == 23 - start
    sampled = sample_frames(bytes(data), 6, LIMITS)
    for image, index in zip(sampled, segment_centres(len(frames), 6), strict=True):
        assert np.array_equal(np.asarray(image), frames[index])


def test_only_what_is_needed_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(frames=200, keyframe_every=10, options=(("bf", "0"),))
    seen: list[int] = []
    check = ImageLimits.check

    def count_frames(self: ImageLimits, width: int, height: int, what: str = "an image") -> None:
        seen.append(1)
        check(self, width, height, what)

    monkeypatch.setattr(ImageLimits, "check", count_frames)
    sample_frames(data, 2, LIMITS)
    assert len(seen) < 60


def test_the_bar_is_where_it_was_drawn() -> None:
    left, right = sample_frames(video(frames=21), 2, LIMITS)
    # The frames 5 and 15 of 21, 80 pixels wide: the bar begins at 19 and at 57.
    assert np.asarray(left)[24, 21:32].min() > 220 and np.asarray(left)[24, 40:].max() < 130
    assert np.asarray(right)[24, 60:70].min() > 220 and np.asarray(right)[24, :50].max() < 130


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_stands_upright(degrees: int) -> None:
    straight = np.asarray(sample_frames(video(), 1, LIMITS)[0])
    turned = np.asarray(sample_frames(video(rotation=degrees), 1, LIMITS)[0])
    assert np.array_equal(turned, np.rot90(straight, degrees // 90))


def test_odd_sizes() -> None:
    data = video("webm", "libvpx-vp9", size=(81, 49), frames=3)
    assert [image.size for image in sample_frames(data, 3, LIMITS)] == [(81, 49)] * 3


def test_limits_are_named() -> None:
    assert "80 x 48 has more than 1000 pixels" in refused(video(), limits=ImageLimits(max_pixels=1000))
    assert "a side of more than 79" in refused(video(), limits=ImageLimits(max_side=79))
    assert "4 frames of a video have more than 15359" in refused(video(), max_total_pixels=15_359)
    assert "more than 22 frames" in refused(video(), max_frames=22)
    assert "longer than 2 s" in refused(video(), max_duration=2)
    assert "longer than 1e-09 s to decode" in refused(video(), timeout=1e-9)
    at_the_limits = VideoLimits(max_frames=23, max_duration=2.2, max_total_pixels=4 * 80 * 48)
    assert len(sample_frames(video(), 4, ImageLimits(max_pixels=80 * 48, max_side=80), at_the_limits)) == 4


def test_a_size_that_grows_in_the_middle() -> None:
    """Keyframes of VP8 carry their own size: the header promises less than comes later."""
    file = io.BytesIO()
    with av.open(file, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        large = av.CodecContext.create("libvpx", "w")
        large.width, large.height, large.pix_fmt, large.time_base = 160, 96, "yuv420p", Fraction(1, 10)
        for context, number in ((stream, 0), (large, 1)):
            frame = av.VideoFrame(16 if number == 0 else 160, 16 if number == 0 else 96, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            for packet in [*context.encode(frame), *context.encode()]:
                packet.stream = stream
                container.mux(packet)
    with av.open(io.BytesIO(file.getvalue())) as container:
        assert container.streams.video[0].width == 16
        assert [frame.width for frame in container.decode(video=0)] == [16, 160]
    assert "160 x 96 has more than 1000 pixels" in refused(file.getvalue(), limits=ImageLimits(max_pixels=1000))


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    frames = tmp_path / "secret.mp4"
    frames.write_bytes(video())
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{frames}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{frames}'\n",
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n{frames}",
        str(frames),
    ]
    for text in playlists:
        assert "not MP4" in refused(text.encode())
        # Behind the first bytes of a container it is the container's reader that gets it.
        for start in (b"\0\0\0\x10ftypisom\0\0\0\0", b"\x1a\x45\xdf\xa3"):
            assert "damaged" in refused(start + text.encode())


@pytest.mark.parametrize("hook", [None, _no_other_file])
def test_the_hook_that_refuses_other_files(hook: Any, tmp_path: Path) -> None:
    """A playlist, the one reader that is sure to ask for another file, does get it without the hook."""
    other = tmp_path / "other.mp4"
    other.write_bytes(video())
    text = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile://{other}\n#EXT-X-ENDLIST\n".encode()
    options = {"protocol_whitelist": "file", "extension_picky": "0"}
    outcome = nullcontext() if hook is None else pytest.raises(PermissionError)
    with outcome, av.open(io.BytesIO(text), format="hls", options=options, io_open=hook) as container:
        assert len(list(container.decode(video=0))) == 23


def test_other_content_is_refused() -> None:
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    for data in (b"", b"x", png.getvalue(), b"\x00" * 100, video("avi", "mpeg4")):
        assert "not MP4" in refused(data)
    assert "codec is not one of" in refused(video("mp4", "mpeg2video"))


def test_a_file_that_is_cut_off() -> None:
    fragmented = video(movflags="frag_keyframe+empty_moov")
    assert len(sample_frames(fragmented, 2, LIMITS)) == 2
    last = fragmented.rindex(b"mdat")
    # The second of two frames is not near the end: that a packet is cut off is seen without decoding it.
    assert "cut off" in refused(fragmented[: last + 30], count=2)
    assert "cut off" in refused(video()[: len(video()) // 2])


def test_sound_alone() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    assert "no pictures" in refused(file.getvalue())


DAMAGED = [video(kind, codec, 9) for kind, codec in KINDS]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(DAMAGED), st.data())
def test_damaged_videos_are_refused_or_shown(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data)))
    damaged = bytearray(data[:cut] if draw.draw(st.booleans()) else data)
    for _ in range(draw.draw(st.integers(0, 8))):
        if damaged:
            damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    try:
        images = sample_frames(bytes(damaged), 3, ImageLimits(max_pixels=10_000))
    except RequestError as error:
        assert error.param == "messages"
    else:
        assert len(images) == 3 and all(image.mode == "RGB" for image in images)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([b"\0\0\0\x10ftypisom\0\0\0\0", b"\x1a\x45\xdf\xa3", b""]),
    st.binary(max_size=400),
)
def test_random_bytes_are_refused(start: bytes, data: bytes) -> None:
    refused(start + data)


@pytest.mark.parametrize(("kind", "codec"), [pair for pair in KINDS if pair[1] != "libsvtav1"])
@pytest.mark.parametrize("asked", [{"num_frames": 8}, {"fps": 3.7}, {"num_frames": 3, "fps": 5}, {"num_frames": -1}])
def test_frames_and_metadata_are_those_of_vllm(kind: str, codec: str, asked: dict[str, Any]) -> None:
    """OpenCV, by which vLLM reads videos, is built without a decoder of AV1."""
    data = video(kind, codec, frames=37)
    frames, metadata = VideoBackend.load_bytes(data, **asked)
    sampled = sample(data, **asked)
    assert np.array_equal(sampled.pixels(), frames)
    assert sampled.metadata() == metadata | {"video_backend": "pyav", "do_sample_frames": False}


def test_a_rate_that_cannot_be_is_measured() -> None:
    data = bytearray(video("matroska", "libx264", frames=21))
    at = data.index(b"\x23\xe3\x83") + 4  # DefaultDuration: nanoseconds of a frame
    data[at : at + 4] = (1).to_bytes(4, "big")
    assert sample(bytes(data)).source.fps == pytest.approx(10, abs=0.1)
