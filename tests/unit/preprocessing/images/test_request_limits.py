# SPDX-License-Identifier: Apache-2.0
"""The operator's limits of what a request may ask of its images and videos."""

from typing import Any

import pytest

from common.chat.media import PROCESSOR_OPTIONS, read_media_request
from common.chat.parts import MediaPart, MediaRequest
from common.errors import RequestError
from preprocessing.images.request_limits import RequestLimits

LIMITS = RequestLimits(frames=16, pixels=10_000, pieces=4)
AREAS = RequestLimits(frames=16, pixels=10_000, pieces=4, areas=True)


def asked(processor: Any = None, media_io: Any = None) -> MediaRequest:
    return read_media_request({"mm_processor_kwargs": processor, "media_io_kwargs": media_io})


@pytest.mark.parametrize(
    ("processor", "problem"),
    [
        ({"max_pixels": 10_001}, ".max_pixels must be at most 10000 (max_resized_pixels)"),
        ({"min_pixels": 10_001}, ".min_pixels must be at most 10000 (max_resized_pixels)"),
        ({"images_kwargs": {"max_pixels": 10_001}}, ".images_kwargs.max_pixels must be at most 10000"),
        (
            {"videos_kwargs": {"size": {"longest_edge": 101}}},
            ".videos_kwargs.size has an edge that must be at most 100 (",
        ),
        ({"size": {"height": 101, "width": 100}}, ".size must be at most 10000 pixels (max_resized_pixels)"),
        (
            {"size": {"shortest_edge": 101}},
            ".size has an edge that must be at most 100 (the root of max_resized_pixels)",
        ),
        ({"max_dynamic_patch": 5}, ".max_dynamic_patch must be at most 4 (max_tiles)"),
        ({"pan_and_scan_min_crop_size": 101}, ".pan_and_scan_min_crop_size must be at most 100"),
        ({"max_soft_tokens": 40}, ".max_soft_tokens must be at most 39 (max_resized_pixels / 256)"),
        ({"num_frames": 17}, ".num_frames must be at most 16 (max_video_frames)"),
    ],
)
def test_a_request_that_asks_for_too_much(processor: dict[str, Any], problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        LIMITS.check(asked(processor), ())
    assert caught.value.message.startswith(f"mm_processor_kwargs{problem}")
    assert caught.value.param == "mm_processor_kwargs"


def test_too_many_frames() -> None:
    with pytest.raises(RequestError) as caught:
        LIMITS.check(asked(None, {"video": {"num_frames": 17}}), ())
    assert caught.value.message == "media_io_kwargs.video.num_frames must be at most 16 (max_video_frames)"
    assert caught.value.param == "media_io_kwargs"


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (MediaPart("video", options={"num_frames": 17}), "num_frames must be at most 16 (max_video_frames)"),
        (MediaPart("image", options={"max_pixels": 10_001}), "max_pixels must be at most 10000 (max_resized_pixels)"),
        (MediaPart("image", options={"min_dynamic_patch": 5}), "min_dynamic_patch must be at most 4 (max_tiles)"),
    ],
)
def test_a_part_that_asks_for_too_much(part: MediaPart, problem: str) -> None:
    with pytest.raises(RequestError) as caught:
        LIMITS.check(MediaRequest(), [MediaPart(), part])
    assert (caught.value.message, caught.value.param) == (f"messages: {problem}", "messages")


def test_what_is_allowed() -> None:
    most = {
        "max_pixels": 10_000,
        "size": {"height": 1, "width": 10_000, "shortest_edge": 100, "longest_edge": 100},
        "max_dynamic_patch": 4,
        "max_soft_tokens": 39,
        "do_pan_and_scan": True,
        "pan_and_scan_min_ratio_to_activate": 1e6,
        "num_frames": 16,
    }
    LIMITS.check(asked(most, {"video": {"num_frames": -1, "fps": 1000}}), [MediaPart("video", options={"fps": 1000})])
    # The edges of Qwen's `size` are numbers of pixels.
    AREAS.check(asked({"size": {"shortest_edge": 10_000, "longest_edge": 10_000}}), ())
    with pytest.raises(RequestError):
        AREAS.check(asked({"size": {"longest_edge": 10_001}}), ())


def test_every_option_that_costs_has_a_limit() -> None:
    free = {name for name, option in PROCESSOR_OPTIONS.items() if option.unit is None}
    numbers = {name for name in free if PROCESSOR_OPTIONS[name].check.__name__ != "_flag"}
    assert numbers == {"pan_and_scan_min_ratio_to_activate"}
