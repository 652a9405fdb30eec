# SPDX-License-Identifier: Apache-2.0
"""The options of images and videos in a chat request."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.chat.media import PART_OPTIONS, PROCESSOR_OPTIONS, read_media_request
from common.chat.messages import place_nothing
from common.chat.parts import Content, MediaPart, MediaRequest, Placed
from common.chat.request import ChatRequest
from common.errors import RequestError

VIDEO = MediaPart("video")


def read(processor: Any = None, media_io: Any = None) -> MediaRequest:
    return read_media_request({"mm_processor_kwargs": processor, "media_io_kwargs": media_io})


def refused(processor: Any = None, media_io: Any = None) -> str:
    with pytest.raises(RequestError) as caught:
        read(processor, media_io)
    assert caught.value.kind == "invalid_request"
    assert caught.value.param == ("mm_processor_kwargs" if media_io is None else "media_io_kwargs")
    return caught.value.message


def place(content: Content, where: str) -> Placed:
    return Placed("", tuple(part for part in content if isinstance(part, MediaPart)))


def test_nothing_is_asked() -> None:
    nothing = MediaRequest()
    for absent in (None, {}):
        assert read(absent, absent) == nothing
    assert read({"max_pixels": None, "images_kwargs": {}}, {"video": None, "image": {}}) == nothing
    assert ChatRequest.parse('{"messages": [{"role": "user", "content": "hi"}]}').media_request == nothing
    assert (nothing.sampling(VIDEO), nothing.flat_options(VIDEO)) == ({}, {})


def test_a_chat_has_the_options_of_the_request_and_of_its_parts() -> None:
    parts = [
        {"type": "image_url", "image_url": {"max_pixels": 5000}},
        {"type": "video_url", "video_url": {"num_frames": 3}},
    ]
    body = {
        "messages": [{"role": "user", "content": parts}],
        "mm_processor_kwargs": {"size": {"longest_edge": 700}},
        "media_io_kwargs": {"video": {"fps": 2}},
    }
    chat = ChatRequest.parse(json.dumps(body), place)
    assert chat.media == (MediaPart(options={"max_pixels": 5000}), MediaPart("video", options={"num_frames": 3}))
    assert chat.media_request == MediaRequest({"size": {"longest_edge": 700}}, {"fps": 2})
    # A text model takes the options, which have nothing to apply to.
    ChatRequest.parse(json.dumps(body | {"messages": [{"role": "user", "content": "hi"}]}), place_nothing)


def test_a_part_goes_before_the_request() -> None:
    asked = read({"max_pixels": 1000, "videos_kwargs": {"min_pixels": 5}}, {"video": {"num_frames": 4, "fps": 2}})
    assert asked.sampling(VIDEO) == {"num_frames": 4, "fps": 2}
    # As in vLLM: a request's number of frames and rate go together.
    assert asked.sampling(MediaPart("video", options={"fps": 1})) == {"fps": 1}
    part = MediaPart("video", options={"max_pixels": 7, "fps": 1})
    assert asked.flat_options(part) == {"max_pixels": 7, "min_pixels": 5}
    assert asked.flat_options(MediaPart()) == {"max_pixels": 1000}
    assert asked.processor == {"max_pixels": 1000, "videos_kwargs": {"min_pixels": 5}}


@pytest.mark.parametrize(
    ("processor", "media_io", "video", "field"),
    [
        ({}, {"video": {"num_frames": -1}}, {"num_frames": -1}, "media_io_kwargs.video"),
        ({"fps": 2, "do_sample_frames": True}, {}, {"fps": 2}, "mm_processor_kwargs"),
        ({"videos_kwargs": {"num_frames": 9, "do_sample_frames": False}}, {}, {"num_frames": 9}, "mm_processor_kwargs"),
        ({"fps": 2}, {"video": {"num_frames": 5}}, {"num_frames": 5}, "media_io_kwargs.video"),
    ],
)
def test_sampling_is_not_left_to_the_processor(
    processor: dict[str, Any], media_io: dict[str, Any], video: dict[str, Any], field: str
) -> None:
    assert read(processor, media_io) == MediaRequest({}, video, field)


@pytest.mark.parametrize(
    ("processor", "problem"),
    [
        (5, "mm_processor_kwargs must be an object, not a number"),
        ({"device": "cuda"}, "has the unknown option 'device'; the known ones are min_pixels, "),
        ({"trust_remote_code": True}, "has the unknown option 'trust_remote_code'"),
        ({"x" * 100: 1}, f"has the unknown option '{'x' * 60}...'"),
        ({"images_kwargs": {"num_frames": 2}}, "mm_processor_kwargs.images_kwargs has the unknown option 'num_frames'"),
        ({"max_pixels": 2**31}, "mm_processor_kwargs.max_pixels must be from 1 to 2147483647"),
        ({"max_pixels": 10**30}, "mm_processor_kwargs.max_pixels must be from 1"),
        ({"max_pixels": 5.0}, "mm_processor_kwargs.max_pixels must be a whole number"),
        ({"max_pixels": True}, "mm_processor_kwargs.max_pixels must be a number, not a boolean"),
        ({"max_pixels": 5, "min_pixels": 6}, "mm_processor_kwargs.min_pixels is above max_pixels"),
        ({"size": 5}, "mm_processor_kwargs.size must be an object"),
        ({"size": {"depth": 5}}, "mm_processor_kwargs.size has the unknown option 'depth'"),
        ({"size": {"height": -5}}, "mm_processor_kwargs.size.height must be from 1"),
        ({"pan_and_scan_min_ratio_to_activate": 0}, "must be above 0"),
        ({"do_pan_and_scan": 1}, "mm_processor_kwargs.do_pan_and_scan must be a boolean, not a number"),
        ({"videos_kwargs": {"fps": [1]}}, "mm_processor_kwargs.videos_kwargs.fps must be a number, not an array"),
    ],
)
def test_wrong_options_of_the_processor(processor: Any, problem: str) -> None:
    assert problem in refused(processor)


@pytest.mark.parametrize(
    ("media_io", "problem"),
    [
        ([], "media_io_kwargs must be an object, not an array"),
        ({"audio": {}}, "media_io_kwargs.audio is not supported: this server takes no audio"),
        ({"film": {}}, "has the unknown option 'film'; the known ones are image, video"),
        ({"image": {"image_mode": "RGB"}}, "media_io_kwargs.image has the unknown option 'image_mode'; there are none"),
        (
            {"video": {"backend": "x"}},
            "media_io_kwargs.video has the unknown option 'backend'; the known ones are num_f",
        ),
        ({"video": {"num_frames": 0}}, "media_io_kwargs.video.num_frames must be from 1"),
        ({"video": {"num_frames": -2}}, "media_io_kwargs.video.num_frames must be from 1"),
        ({"video": {"fps": 0}}, "media_io_kwargs.video.fps must be above 0"),
        ({"video": {"fps": float("inf")}}, "media_io_kwargs.video.fps must be above 0"),
        ({"video": {"fps": float("nan")}}, "media_io_kwargs.video.fps must be above 0"),
        ({"video": {"fps": 1001}}, "media_io_kwargs.video.fps must be at most 1000"),
    ],
)
def test_wrong_options_of_loading(media_io: Any, problem: str) -> None:
    assert problem in refused(media_io=media_io)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
NAMES = st.sampled_from(
    [
        *PROCESSOR_OPTIONS,
        *PART_OPTIONS["video"],
        "images_kwargs",
        "videos_kwargs",
        "video",
        "image",
        "height",
        "longest_edge",
    ]
)
OBJECTS = st.recursive(SCALARS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


@given(OBJECTS, OBJECTS)
def test_any_options(processor: Any, media_io: Any) -> None:
    """They are read or refused, and what is read is small JSON of known names."""
    try:
        asked = read(processor, media_io)
    except RequestError as error:
        assert error.param in ("mm_processor_kwargs", "media_io_kwargs") and len(error.message) < 1000
        return
    json.dumps([asked.processor, asked.video], allow_nan=False)
    assert asked.video.keys() <= {"num_frames", "fps"}
    assert asked.processor.keys() <= {*PROCESSOR_OPTIONS, "images_kwargs", "videos_kwargs"}
