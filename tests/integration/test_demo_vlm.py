# SPDX-License-Identifier: Apache-2.0
"""The demo model answers questions about pictures that are not in its training data, through the whole stack."""

import base64
import io

import pytest
from openai import OpenAI
from PIL import Image, ImageDraw

from tests.support.demo_stack import GREEN, WHITE, DemoStack


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
