# SPDX-License-Identifier: Apache-2.0
"""The demo model answers questions about pictures that are not in its training data, through the whole stack."""

import base64
import io
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from PIL import Image, ImageDraw

from tests.support.demo_stack import GREEN, WHITE, DemoStack
from tests.support.videos import video


def ask(demo: DemoStack, question: str, *urls: str) -> str:
    client = OpenAI(base_url=f"{demo.stack.url}/v1", api_key="unused", timeout=120, max_retries=0)
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": question}, *parts] if urls else question
    answer = client.chat.completions.create(
        model="demo-vlm", messages=[{"role": "user", "content": content}], temperature=0, max_tokens=40
    )
    return answer.choices[0].message.content.lower()


@pytest.mark.parametrize(
    ("question", "names", "expected"),
    [
        ("What color is the circle?", ["red-circle.png"], "red"),
        ("What shape is in the picture?", ["red-circle.png"], "circle"),
        ("What color is the square?", ["blue-square.jpg"], "blue"),
        ("How many circles are there?", ["three-yellow.webp"], "three"),
        ("Is the green square to the left or to the right of the red circle?", ["left-right.png"], "left"),
        ("What is written in the picture?", ["word.png"], "fish"),
        ("What is in the second image?", ["red-circle.png", "blue-square.jpg"], "blue square"),
    ],
)
def test_what_it_sees(demo: DemoStack, question: str, names: list[str], expected: str) -> None:
    assert expected in ask(demo, question, *((demo.folder / name).as_uri() for name in names))


def test_an_uploaded_picture(demo: DemoStack) -> None:
    file = io.BytesIO()
    image = Image.new("RGB", (256, 256), WHITE)
    ImageDraw.Draw(image).polygon([(128, 60), (60, 190), (196, 190)], fill=GREEN)
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    answer = ask(demo, "What do you see in the picture?", url)
    assert "green" in answer and "triangle" in answer


def test_text_is_answered_as_before(demo: DemoStack) -> None:
    assert "paris" in ask(demo, "Please name the capital of France.")


def test_a_video_has_as_many_frames_as_the_request_says(demo: DemoStack) -> None:
    client = OpenAI(base_url=f"{demo.stack.url}/v1", api_key="unused", timeout=120, max_retries=0)
    film = "data:video/mp4;base64," + base64.b64encode(video()).decode()  # 23 frames, 10 per second

    def part(**options: Any) -> Any:
        return {"type": "video_url", "video_url": {"url": film, **options}}

    def tokens(*parts: Any, **fields: Any) -> int:
        answer = client.chat.completions.create(
            model="demo-vlm", messages=[{"role": "user", "content": [*parts]}], max_tokens=1, extra_body=fields
        )
        return answer.usage.prompt_tokens

    one, two, three = (tokens(part(num_frames=frames)) for frames in (1, 2, 3))
    frame = two - one
    # A tile, and the few tokens of a line.
    assert 64 < frame == three - two < 80
    assert tokens(part()) == one + 7 * frame
    assert tokens(part(fps=1)) == two == tokens(part(), media_io_kwargs={"video": {"fps": 1}})
    assert tokens(part(), mm_processor_kwargs={"num_frames": 3}) == three
    both = tokens(part(num_frames=3), part(), media_io_kwargs={"video": {"num_frames": 1}})
    assert both == one + 3 * frame
    response = client.responses.create(
        model="demo-vlm",
        input=[{"role": "user", "content": [part()]}],
        max_output_tokens=1,
        extra_body={"media_io_kwargs": {"video": {"num_frames": 2}}},
    )
    assert response.usage.input_tokens == two
    with pytest.raises(BadRequestError) as refused:
        tokens(part(), media_io_kwargs={"video": {"num_frames": 129}})
    assert refused.value.body["param"] == "media_io_kwargs"
    assert "num_frames must be at most 128 (max_video_frames)" in refused.value.body["message"]


def test_a_picture_of_as_many_tiles_as_the_request_says(demo: DemoStack) -> None:
    client = OpenAI(base_url=f"{demo.stack.url}/v1", api_key="unused", timeout=120, max_retries=0)

    def tokens(fields: dict[str, Any], **options: Any) -> int:
        url = {"url": (demo.folder / "left-right.png").as_uri(), **options}
        answer = client.chat.completions.create(
            model="demo-vlm",
            messages=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}],
            max_tokens=1,
            extra_body=fields,
        )
        return answer.usage.prompt_tokens

    low = tokens({}, detail="low")
    assert low == tokens({}, max_dynamic_patch=1) == tokens({"mm_processor_kwargs": {"max_dynamic_patch": 1}})
    assert tokens({}, min_dynamic_patch=2) > low
    with pytest.raises(BadRequestError) as refused:
        tokens({"mm_processor_kwargs": {"max_pixels": 5000}})
    assert "has 'max_pixels', which this model does not take" in refused.value.body["message"]
