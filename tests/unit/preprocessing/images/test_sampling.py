# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video are sampled; vLLM's own loader says what users of vLLM expect."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.multimodal.video import VideoBackend
from vllm.multimodal.video_decoders import VideoSourceMetadata, VideoTargetMetadata

from common.errors import RequestError
from preprocessing.images.sampling import VideoSource, evenly_spaced, frame_count, segment_centres


@pytest.mark.parametrize(
    ("frames", "count", "indices"),
    [
        # Worked out by hand: (frames - 1) / count is a segment's length, half a segment the offset.
        (101, 4, [12, 37, 62, 87]),
        (9, 2, [2, 6]),
        (10, 1, [4]),
        (1, 3, [0, 0, 0]),
        (3, 5, [0, 0, 1, 1, 2]),
    ],
)
def test_segment_centres(frames: int, count: int, indices: list[int]) -> None:
    assert segment_centres(frames, count) == indices


@given(st.integers(1, 100_000), st.integers(1, 300))
def test_segment_centres_rise_within_the_video(frames: int, count: int) -> None:
    indices = segment_centres(frames, count)
    assert indices == sorted(indices) and len(indices) == count
    assert 0 <= indices[0] <= indices[-1] < frames


@given(
    st.integers(1, 100_000),
    st.floats(0.1, 1000),
    st.sampled_from([-1, 1, 2, 7, 32, 128]),
    st.sampled_from([-1, 0.5, 1, 2, 3.7, 30, 1000]),
)
def test_the_frames_are_those_of_vllm(frames: int, fps: float, asked_frames: int, asked_fps: float) -> None:
    source = VideoSource(frames, fps)
    theirs = VideoBackend.compute_frames_index_to_sample(
        VideoSourceMetadata(source.frames, source.fps, source.duration),
        VideoTargetMetadata(asked_frames, asked_fps, 300),
    )
    count = frame_count(source, {"num_frames": asked_frames, "fps": asked_fps}, 8, 100_000)
    assert evenly_spaced(frames, count) == theirs


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, 8),
        ({"num_frames": 16}, 16),
        ({"num_frames": 128}, 128),
        ({"num_frames": 1000, "fps": 2}, 20),  # 10 s
        ({"num_frames": 5, "fps": 2}, 5),
        ({"fps": 0.01}, 1),
        ({"fps": 1000}, 128),
        ({"num_frames": -1, "fps": 30}, 128),
    ],
)
def test_how_many(asked: dict[str, Any], count: int) -> None:
    assert frame_count(VideoSource(300, 30.0), asked, 8, 128) == count


@pytest.mark.parametrize(
    "asked", [{"num_frames": 129}, {"num_frames": -1}, {"fps": -1}, {"num_frames": 300, "fps": -1}]
)
def test_more_than_the_operator_allows(asked: dict[str, Any]) -> None:
    with pytest.raises(RequestError) as caught:
        frame_count(VideoSource(300, 30.0), asked, 8, 128)
    assert caught.value.param == "messages" and "maximum of 128 (max_video_frames)" in caught.value.message


def test_all_frames_of_a_short_video() -> None:
    assert frame_count(VideoSource(20, 10.0), {"num_frames": -1}, 8, 128) == 20
    assert evenly_spaced(20, 20) == list(range(20)) == evenly_spaced(20, 50)
