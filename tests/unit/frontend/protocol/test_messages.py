# SPDX-License-Identifier: Apache-2.0
"""Images and videos in messages: their parts, their URLs, and the files that Triton receives."""

import base64
from typing import Any

import pytest

from common.errors import RequestError
from frontend.endpoints.responses_input import chat_body
from frontend.protocol.messages import VideoUrl, clean_messages
from tests.fakes.fake_triton import Call
from tests.fakes.frontend_server import serving

URL = "data:image/png;base64,cGl4ZWxz"


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def image(**fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": fields}


def test_parts_keep_their_place_and_detail() -> None:
    parts = [
        image(url="a"),
        {"type": "text", "text": "and"},
        image(url="b", detail="low"),
        {"type": "video_url", "video_url": {"url": "c"}},
        {"type": "image_url", "image_url": "d"},
        {"type": "video_url", "video_url": "e"},
        image(url="f", detail=None),
    ]
    messages, urls = clean_messages(user(*parts))
    assert urls == ["a", "b", "c", "d", "e", "f"]
    assert [isinstance(url, VideoUrl) for url in urls] == [False, False, True, False, True, False]
    assert messages[0]["content"] == [
        image(),
        parts[1],
        image(detail="low"),
        {"type": "video_url", "video_url": {}},
        image(),
        {"type": "video_url", "video_url": {}},
        image(),
    ]


def test_parts_keep_their_options() -> None:
    parts = [
        image(url="a", max_pixels=5000, detail="low"),
        {"type": "video_url", "video_url": {"url": "b", "fps": 2, "num_frames": 4}},
        # Beside the URL, as in Qwen's own API.
        {"type": "image_url", "image_url": {"url": "c"}, "min_pixels": 1000, "max_pixels": None, "fps": 9},
        {"type": "video_url", "video_url": "d", "fps": 0.5},
        {"type": "image_url", "image_url": {"url": "e", "max_pixels": 7}, "max_pixels": 8},
    ]
    messages, urls = clean_messages(user(*parts))
    assert urls == ["a", "b", "c", "d", "e"]
    assert messages[0]["content"] == [
        image(max_pixels=5000, detail="low"),
        {"type": "video_url", "video_url": {"fps": 2, "num_frames": 4}},
        image(min_pixels=1000),
        {"type": "video_url", "video_url": {"fps": 0.5}},
        image(max_pixels=7),
    ]


@pytest.mark.parametrize("arguments", [1, 0.5, True])
def test_arguments_of_a_wrong_type_are_refused_before_triton_is_asked(arguments: Any) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(RequestError, match=r"^messages\[0\]\.tool_calls\[0\]\.function\.arguments must be") as raised:
        clean_messages([{"role": "assistant", "tool_calls": [call]}])
    assert raised.value.param == "messages[0].tool_calls"


@pytest.mark.parametrize(
    ("part", "field"),
    [
        (image(url="a", detail="finest"), "image_url.detail"),
        (image(url="a", detail=""), "image_url.detail"),
        (image(url="a", detail=["low"]), "image_url.detail"),
        (image(url=5), "image_url.url"),
        ({"type": "image_url"}, "image_url.url"),
        ({"type": "image_url", "image_url": ["a"]}, "image_url.url"),
        ({"type": "video_url", "video_url": {}}, "video_url.url"),
        ({"type": "input_audio", "input_audio": {}}, "type"),
        ({"type": "audio_url", "audio_url": {"url": "a"}}, "type"),
        ({"type": "file", "file": {}}, "type"),
        (image(url="a", max_pixels=0), "image_url.max_pixels"),
        (image(url="a", max_pixels="5"), "image_url.max_pixels"),
        ({**image(url="a"), "max_pixels": True}, "max_pixels"),
        (image(url="a", min_pixels=9, max_pixels=8), "min_pixels"),
        ({"type": "video_url", "video_url": {"url": "a", "num_frames": 1.5}}, "video_url.num_frames"),
        ({"type": "video_url", "video_url": {"url": "a", "fps": 0}}, "video_url.fps"),
    ],
)
def test_bad_parts_are_named(part: dict, field: str) -> None:
    with pytest.raises(RequestError) as caught:
        clean_messages(user({"type": "text", "text": "x"}, part))
    assert caught.value.param == f"messages[0].content[1].{field}"
    if field.endswith("detail"):
        assert "auto, high, low" in caught.value.message


def test_images_of_responses() -> None:
    content = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": URL, "detail": "high"},
        {"type": "input_image", "image_url": "https://example.org/x.png"},
    ]
    body, _ = chat_body({"input": [{"role": "user", "content": content}]})
    assert clean_messages(body["messages"]) == (
        user({"type": "text", "text": "What is this?"}, image(detail="high"), image()),
        [URL, "https://example.org/x.png"],
    )


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_image", "file_id": "file-1"},
        {"type": "input_image", "image_url": {"url": URL}},
        {"type": "input_image", "image_url": URL, "detail": "8K"},
        {"type": "input_file", "file_id": "file-1"},
        "text",
        {"type": "image"},
    ],
)
def test_refused_images_of_responses(part: Any) -> None:
    with pytest.raises(RequestError) as caught:
        chat_body({"input": [{"role": "user", "content": [part]}]})
    assert caught.value.param in ("input[0].content[0]", "input[0].content[0].detail")


def test_options_videos_and_audio_of_responses() -> None:
    content = [
        {"type": "input_image", "image_url": URL, "max_pixels": 5000},
        {"type": "video_url", "video_url": {"url": "b", "fps": 2}},
    ]
    options = {"mm_processor_kwargs": {"max_pixels": 9000}, "media_io_kwargs": {"video": {"num_frames": 3}}}
    body, _ = chat_body({"input": [{"role": "user", "content": content}], **options})
    assert clean_messages(body["messages"]) == (
        user(image(max_pixels=5000), {"type": "video_url", "video_url": {"fps": 2}}),
        [URL, "b"],
    )
    assert options.items() <= body.items()
    body, names = chat_body({"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]})
    with pytest.raises(RequestError) as caught:
        clean_messages(body["messages"])
    error = names().own(caught.value)
    assert error.param == "input[0].content[0].type" and "audio is not supported" in error.message


async def test_the_files_reach_triton_in_order() -> None:
    def url(data: bytes) -> str:
        return f"data:;base64,{base64.b64encode(data).decode()}"

    parts = [image(url=url(b"1")), {"type": "video_url", "video_url": {"url": url(b"2")}}, image(url=url(b"3"))]
    async with serving(served_model_name=("model",)) as served:
        assert (await served.chat(messages=user(*parts))).status_code == 200
        content = [
            {"type": "input_text", "text": "?"},
            {"type": "input_image", "image_url": url(b"4"), "detail": "low"},
        ]
        await served.openai.responses.create(model="model", input=[{"role": "user", "content": content}])
        calls: list[Call] = served.triton.calls
        assert [call.inputs["images"] for call in calls] == [[b"1", b"2", b"3"], [b"4"]]
        assert [part["type"] for part in calls[0].messages["messages"][0]["content"]] == [
            "image_url",
            "video_url",
            "image_url",
        ]
        assert calls[1].messages["messages"][0]["content"][1] == image(detail="low")
