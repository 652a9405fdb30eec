# SPDX-License-Identifier: Apache-2.0
"""A stack of the demo model with a folder of pictures, which it may read by path, http: and https:."""

import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scripts.launcher import FREE_PORTS, Stack
from tests.fakes.certificate import write_certificate
from tests.support.passing_stack import passing_stack

RED, BLUE, GREEN, WHITE, BLACK, YELLOW = "#e02020", "#2040e0", "#20a030", "#ffffff", "#000000", "#f0d020"


@dataclass(frozen=True, slots=True)
class DemoStack:
    """A running demo model. folder: the pictures of `draw_all`, which `http` and `https` (base URLs) serve as well."""

    stack: Stack
    folder: Path
    http: str
    https: str


@contextmanager
def demo_stack(folder: Path) -> Iterator[DemoStack]:
    """Start everything on free ports; `folder` is empty."""
    pictures = folder / "pictures"
    pictures.mkdir()
    draw_all(pictures)
    tls = write_certificate(folder / "certificate.pem")
    environment = os.environ | {"SSL_CERT_FILE": str(folder / "certificate.pem"), "VLLM_CPU_KVCACHE_SPACE": "1"}
    flags = ["--log-dir", str(folder / "logs"), "--image-dirs", str(pictures), "--image-private-hosts", *FREE_PORTS]
    with ExitStack() as all_of_it:
        http = all_of_it.enter_context(_file_server(pictures))
        https = all_of_it.enter_context(_file_server(pictures, tls))
        stack = all_of_it.enter_context(passing_stack(["demo-vlm", *flags], environment))
        yield DemoStack(stack, pictures, http, https)


@contextmanager
def _file_server(folder: Path, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        server.shutdown()


def draw_all(folder: Path) -> None:
    """Draw pictures that are not in the training data, with other code than the training's."""

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
