# SPDX-License-Identifier: Apache-2.0
"""Images by data: and file: URL, and the limits of a request."""

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frontend.images.data_urls import decode_data_url
from frontend.images.limits import FetchError
from frontend.protocol.messages import VideoUrl
from tests.fakes.web_server import fetchers, refused

URL = "data:image/png;base64,cGl4ZWxz"


@pytest.fixture
async def fetcher() -> AsyncIterator[Any]:
    async with fetchers() as make:
        yield make


@pytest.mark.parametrize(
    ("url", "data"),
    [
        ("data:image/png;base64,cGl4ZWxz", b"pixels"),
        ("DATA:IMAGE/PNG;BASE64,cGl4ZWxz", b"pixels"),
        ("data:image/png;charset=utf-8;name=a.png;base64,cGl4ZWxz", b"pixels"),
        ("data:;base64,cGl4ZWxz", b"pixels"),
        ("data:image/png; base64 ,cGl4ZWxz", b"pixels"),
        ("data:image/png;base64,cGl4\r\n ZWxz\t", b"pixels"),
        ("data:image/png;base64,cGl4%0AZWxz", b"pixels"),
        ("data:image/png;base64,%2B/%2B/", b"\xfb\xff\xbf"),
        ("data:image/png;base64,+/+/", b"\xfb\xff\xbf"),
        ("data:image/png;base64,eA==", b"x"),
        ("data:image/png;base64,eA%3D%3D", b"x"),
        ("data:image/png;base64,eA", b"x"),
        ("data:image/png;base64,eHg", b"xx"),
        ("data:image/png;base64,", b""),
        ("data:image/png,%89PNG%0D%0A", b"\x89PNG\r\n"),
        ("data:image/png,a+b%2", b"a+b%2"),
        ("data:,cGl4ZWxz", b"cGl4ZWxz"),
        ("data:image/png;base64x,cGl4", b"cGl4"),
        ("data:image/svg+xml,<svg>%23</svg>#part", b"<svg>#</svg>"),
        ("data:image/png;base64,cGl4ZWxz#part", b"pixels"),
    ],
)
def test_data_urls(url: str, data: bytes) -> None:
    """Each is decoded as in a browser."""
    assert decode_data_url(url) == data


@pytest.mark.parametrize("data", ["cGl4Z", "%%%", "c", "cGl4=", "=", "eA=", "eA===", "e=A=", "cG-_", "cGl4ü", "\ud800"])
def test_data_urls_that_hold_no_base64(data: str) -> None:
    with pytest.raises(FetchError):
        decode_data_url(f"data:image/png;base64,{data}")


async def test_data_urls_are_refused_by_position(fetcher: Any) -> None:
    images = fetcher()
    assert "image 2: its data: URL holds no valid base64" in await refused(images, URL, URL[:-3])
    assert "no comma" in await refused(images, "data:image/png;base64")
    assert await images.fetch([f" {URL}\n"]) == (b"pixels",)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000, 1001])
async def test_the_limit_of_bytes_is_exact(fetcher: Any, size: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(size))
    urls = [f"data:;base64,{base64.b64encode(bytes(size)).decode()}", f"file://{tmp_path}/x"]
    for url in urls:
        images = fetcher(image_max_bytes=max(size, 1), image_dirs=(str(tmp_path),))
        assert await images.fetch([url]) == (bytes(size),)
        if size > 1:
            images = fetcher(image_max_bytes=size - 1, image_dirs=(str(tmp_path),))
            assert f"larger than {size - 1} bytes (image_max_bytes)" in await refused(images, url)


async def test_videos_have_their_own_limit(fetcher: Any) -> None:
    images = fetcher(image_max_bytes=5, video_max_bytes=6)
    assert await images.fetch([VideoUrl(URL)]) == (b"pixels",)
    assert "image 1: it is larger than 5" in await refused(images, URL)
    assert "video 1: it is larger than 5 bytes (video_max_bytes)" in await refused(
        fetcher(video_max_bytes=5), VideoUrl(URL)
    )


async def test_all_together_are_limited(fetcher: Any) -> None:
    images = fetcher(image_total_bytes=12)
    # What one request has fetched does not count against the next.
    for _ in range(2):
        assert await images.fetch([URL, VideoUrl(URL)]) == (b"pixels",) * 2
    assert "all together are larger than 12 bytes (image_total_bytes)" in await refused(images, URL, URL, URL)


async def test_the_number_is_limited(fetcher: Any) -> None:
    images = fetcher(max_images=2)
    assert len(await images.fetch([URL] * 2)) == 2
    assert "at most 2 images and videos are allowed (max_images)" in await refused(images, URL, VideoUrl(URL), URL)
    assert await images.fetch([]) == ()


@pytest.mark.parametrize("url", ["", "ftp://example.org/x", "x.png", "blob:x", "//example.org/x", "javascript:1"])
async def test_other_schemes(fetcher: Any, url: str) -> None:
    assert "must begin with" in await refused(fetcher(image_private_hosts=True), url)


class TestFiles:
    @pytest.fixture
    def allowed(self, tmp_path: Path) -> Path:
        allowed = tmp_path / "images"
        allowed.mkdir()
        (allowed / "an image%.png").write_bytes(b"pixels")
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "images-too").mkdir()
        (tmp_path / "images-too" / "secret").write_bytes(b"secret")
        return allowed

    @pytest.mark.parametrize("start", ["file://", "file:", "FILE://", "file://localhost", "file://LOCALHOST"])
    async def test_below_an_allowed_directory(self, fetcher: Any, allowed: Path, start: str) -> None:
        images = fetcher(image_dirs=(str(allowed),))
        assert await images.fetch([f"{start}{allowed}/an%20image%25.png"]) == (b"pixels",)
        assert await images.fetch([f"{start}{allowed}/x/../%61n%20image%25.png?v=1#x"]) == (b"pixels",)

    async def test_names_are_bytes(self, fetcher: Any, allowed: Path) -> None:
        Path(os.fsdecode(os.fsencode(allowed) + b"/\xff\xfe")).write_bytes(b"odd")
        (allowed / "画像").write_bytes(b"kanji")
        images = fetcher(image_dirs=(str(allowed),))
        urls = [f"file://{allowed}/%FF%FE", f"file://{allowed}/画像", f"file://{allowed}/%E7%94%BB%E5%83%8F"]
        assert await images.fetch(urls) == (b"odd", b"kanji", b"kanji")

    @pytest.mark.parametrize(
        "path",
        [
            "/../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/missing",
            "",
            "/",
            "/.",
            "/../images-too/secret",
            "-too/secret",
        ],
    )
    async def test_missing_files_are_refused_like_forbidden_ones(self, fetcher: Any, allowed: Path, path: str) -> None:
        message = await refused(fetcher(image_dirs=(str(allowed),)), f"file://{allowed}{path}")
        assert message == (
            "messages: image 1: a file: URL must name a file in a directory that the server allows (image_dirs)"
        )

    async def test_no_directory_is_allowed_by_default(self, fetcher: Any, allowed: Path) -> None:
        assert "allows" in await refused(fetcher(), f"file://{allowed}/an%20image%25.png")

    async def test_links_are_followed_before_the_check(self, fetcher: Any, allowed: Path) -> None:
        (allowed / "out").symlink_to(allowed.parent / "secret")
        (allowed / "up").symlink_to(allowed.parent)
        (allowed / "loop").symlink_to(allowed / "loop")
        (allowed / "in").symlink_to(allowed / "an image%.png")
        (allowed.parent / "entry").symlink_to(allowed)
        images = fetcher(image_dirs=(str(allowed.parent / "entry"),))
        assert await images.fetch([f"file://{allowed}/in"]) == (b"pixels",)
        assert await images.fetch([f"file://{allowed.parent}/entry/in"]) == (b"pixels",)
        for name in ("out", "up/secret", "loop"):
            assert "allows" in await refused(images, f"file://{allowed}/{name}")

    async def test_only_regular_files(self, fetcher: Any, allowed: Path) -> None:
        """Opening a FIFO without a writer would block forever."""
        os.mkfifo(allowed / "fifo")
        (allowed / "folder").mkdir()
        (allowed / "null").symlink_to("/dev/null")
        images = fetcher(image_dirs=(str(allowed), "/dev"))
        for name in ("fifo", "folder", "null"):
            assert "allows" in await refused(images, f"file://{allowed}/{name}")
        assert "allows" in await refused(images, "file:///dev/zero")

    @pytest.mark.parametrize("url", ["file:///x%00", "file://[/x", "file:///" + "x" * 5000])
    async def test_odd_paths(self, fetcher: Any, allowed: Path, url: str) -> None:
        await refused(fetcher(image_dirs=("/",)), url)

    async def test_other_hosts(self, fetcher: Any, allowed: Path) -> None:
        images = fetcher(image_dirs=(str(allowed),))
        for host in ("example.org", "127.0.0.1", "localhost:80", "user@localhost"):
            assert "of the server itself" in await refused(images, f"file://{host}{allowed}/an%20image%25.png")
