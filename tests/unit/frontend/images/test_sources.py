# SPDX-License-Identifier: Apache-2.0
"""The image fetcher with files, a web server and data URLs: what is allowed, and how much."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from common.errors import RequestError
from frontend.images import ImageFetcher
from frontend.settings import Settings
from tests.fakes.frontend_server import free_server


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    made: list[ImageFetcher] = []

    def make(**settings: Any) -> ImageFetcher:
        made.append(ImageFetcher(Settings(**settings)))
        return made[-1]

    yield make
    for one in made:
        await one.close()


async def test_files_only_from_allowed_directories(fetcher: Any, tmp_path: Path) -> None:
    allowed, outside = tmp_path / "images", tmp_path / "outside.png"
    allowed.mkdir()
    (allowed / "an image.png").write_bytes(b"pixels")
    (allowed / "link.png").symlink_to(outside)
    outside.write_bytes(b"secret")
    images = fetcher(image_dirs=(str(allowed),), image_max_bytes=10)
    assert await images.fetch([f"file://{allowed}/an%20image.png"]) == (b"pixels",)
    (allowed / "large.png").write_bytes(b"x" * 11)
    for name in ("../outside.png", "link.png", "missing.png", "large.png", ""):
        with pytest.raises(RequestError):
            await images.fetch([f"file://{allowed}/{name}"])


async def image_app(scope: Any, receive: Any, send: Any) -> None:
    """A web server with an image, a redirect to it, a redirect to itself, a redirect to a file, a large image."""
    redirects = {"/moved": "/image", "/loop": "/loop", "/file": "file:///etc/passwd"}
    path = scope["path"]
    status = 302 if path in redirects else 200
    headers = [(b"location", redirects[path].encode())] if path in redirects else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * 1000 if path == "/large" else b"pixels"})


async def test_images_from_the_web(fetcher: Any) -> None:
    async with free_server(uvicorn.Config(image_app, log_level="error", lifespan="off")) as url:
        images = fetcher(image_private_hosts=True, image_max_bytes=100, image_timeout=5.0)
        named = url.replace("127.0.0.1", "localhost")
        assert await images.fetch([f"{url}/image", f"{named}/moved"]) == (b"pixels", b"pixels")
        for path in ("loop", "file", "large"):
            with pytest.raises(RequestError):
                await images.fetch([f"{url}/{path}"])
        with pytest.raises(RequestError, match="not allowed"):
            await fetcher().fetch([f"{named}/image"])
        with pytest.raises(RequestError, match="not allowed"):
            await fetcher(image_private_hosts=True, image_hosts=("example.org",)).fetch([f"{url}/image"])
    with pytest.raises(RequestError, match="could not be fetched"):
        await images.fetch([f"{url}/image"])


async def test_number_and_size_of_images(fetcher: Any) -> None:
    images = fetcher(max_images=2, image_max_bytes=4)
    url = "data:image/png;base64,cGl4"
    assert await images.fetch([url, url]) == (b"pix", b"pix")
    with pytest.raises(RequestError, match="at most 2"):
        await images.fetch([url] * 3)
    with pytest.raises(RequestError, match="larger"):
        await images.fetch(["data:image/png;base64,cGl4ZWxz"])
