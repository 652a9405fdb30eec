# SPDX-License-Identifier: Apache-2.0
"""The demo model looks at pictures: real questions about files that no training has seen, through the whole stack."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI
from PIL import Image, ImageDraw, ImageFont

from scripts.launcher import FREE_PORTS, Stack

RED, BLUE, GREEN, WHITE, BLACK, YELLOW = "#e02020", "#2040e0", "#20a030", "#ffffff", "#000000", "#f0d020"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("demo")
    flags = ["--log-dir", str(folder / "logs"), "--image-dirs", str(folder), *FREE_PORTS]
    with Stack(["demo-vlm", *flags]) as running:
        draw_all(folder)
        yield running


def draw_all(folder: Path) -> None:
    def canvas(size: tuple[int, int] = (300, 300), ground: str = WHITE) -> tuple[Image.Image, ImageDraw.ImageDraw]:
        image = Image.new("RGB", size, ground)
        return image, ImageDraw.Draw(image)

    image, draw = canvas()
    draw.ellipse((100, 100, 200, 200), fill=RED)
    image.save(folder / "red-circle.png")
    image, draw = canvas()
    draw.rectangle((90, 90, 210, 210), fill=BLUE)
    image.save(folder / "blue-square.jpg", quality=90)
    image, draw = canvas((640, 320), BLACK)
    for left in (60, 270, 480):
        draw.ellipse((left, 110, left + 100, 210), fill=YELLOW)
    image.save(folder / "three-yellow.webp", lossless=True)
    image, draw = canvas()
    draw.rectangle((30, 130, 90, 190), fill=GREEN)
    draw.ellipse((210, 130, 270, 190), fill=RED)
    image.save(folder / "left-right.png")
    image, draw = canvas((400, 200))
    draw.text((110, 70), "FISH", font=ImageFont.load_default(64), fill=BLACK)
    image.save(folder / "word.png")


def ask(stack: Stack, question: str, *urls: str) -> str:
    client = OpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=120, max_retries=0)
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
def test_what_it_sees(demo: Stack, question: str, names: list[str], expected: str) -> None:
    folder = demo.options.log_dir.parent
    assert expected in ask(demo, question, *((folder / name).as_uri() for name in names))


def test_an_uploaded_picture(demo: Stack) -> None:
    file = io.BytesIO()
    image = Image.new("RGB", (256, 256), WHITE)
    ImageDraw.Draw(image).polygon([(128, 60), (60, 190), (196, 190)], fill=GREEN)
    image.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    answer = ask(demo, "What do you see in the picture?", url)
    assert "green" in answer and "triangle" in answer


def test_text_is_answered_as_before(demo: Stack) -> None:
    assert "paris" in ask(demo, "What is the capital of France?")
