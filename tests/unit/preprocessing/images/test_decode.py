# SPDX-License-Identifier: Apache-2.0
"""Encoded images to RGB: every mode against plain Pillow calls, limits, and damage of every kind."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from common.errors import RequestError
from preprocessing.images.decode import MAX_SCANS, ImageLimits, decode_image, to_rgb

LIMITS = ImageLimits()
RANDOM = np.random.default_rng(7)
SMOOTH = np.linspace(0, 255, 12 * 9 * 4).reshape(9, 12, 4).astype(np.uint8)
ALPHA = Image.fromarray(RANDOM.integers(0, 256, (9, 12, 4), np.uint8))
COLOUR = Image.fromarray(SMOOTH[:, :, :3].copy())
GREY = COLOUR.convert("L")
PALETTE = COLOUR.quantize(11)
WITH_ALPHA = Image.merge("LA", (GREY, ALPHA.getchannel("A")))


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def on_white(image: Image.Image) -> Image.Image:
    """By arithmetic on the pixels: colour times alpha, white for the rest."""
    pixels = np.asarray(image.convert("RGBA")).astype(int)
    alpha = pixels[:, :, 3:]
    blended = (pixels[:, :, :3] * alpha + 255 * (255 - alpha)) / 255
    return Image.fromarray(np.round(blended).astype(np.uint8))


def same(one: Image.Image, other: Image.Image, tolerance: int = 0) -> bool:
    assert one.mode == other.mode == "RGB" and one.size == other.size
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max()) <= tolerance


def refused(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(RequestError) as caught:
        decode_image(data, limits)
    assert caught.value.param == "messages" and caught.value.kind == "invalid_request"
    return caught.value.message


OPAQUE = {
    "jpeg": encode(COLOUR, "JPEG"),
    "jpeg-grey": encode(GREY, "JPEG"),
    "jpeg-progressive": encode(COLOUR, "JPEG", progressive=True),
    "jpeg-cmyk": encode(COLOUR.convert("CMYK"), "JPEG"),
    "png": encode(COLOUR, "PNG"),
    "png-grey": encode(GREY, "PNG"),
    "png-1-bit": encode(GREY.convert("1"), "PNG"),
    "png-palette": encode(PALETTE, "PNG"),
    "png-palette-1-bit": encode(COLOUR.quantize(2), "PNG", bits=1),
    "webp": encode(COLOUR, "WEBP", lossless=True),
    "webp-lossy": encode(COLOUR, "WEBP"),
    "gif": encode(PALETTE, "GIF"),
    "gif-grey": encode(GREY, "GIF"),
    "bmp": encode(COLOUR, "BMP"),
    "bmp-palette": encode(PALETTE, "BMP"),
    "bmp-32-bit": encode(ALPHA, "BMP"),
    "bmp-1-bit": encode(GREY.convert("1"), "BMP"),
}
TRANSPARENT = {
    "png-rgba": encode(ALPHA, "PNG"),
    "png-la": encode(WITH_ALPHA, "PNG"),
    "png-palette-colour": encode(PALETTE, "PNG", transparency=3),
    "png-palette-alphas": encode(PALETTE, "PNG", transparency=bytes(range(0, 220, 20))),
    "png-rgb-colour": encode(COLOUR, "PNG", transparency=COLOUR.getpixel((5, 5))),
    "png-grey-colour": encode(GREY, "PNG", transparency=GREY.getpixel((5, 5))),
    "png-1-bit-colour": encode(GREY.convert("1"), "PNG", transparency=0),
    "webp-rgba": encode(ALPHA, "WEBP", lossless=True, exact=True),
    "gif-colour": encode(PALETTE, "GIF", transparency=3),
}
EVERY = OPAQUE | TRANSPARENT


@pytest.mark.parametrize("name", OPAQUE)
def test_opaque(name: str) -> None:
    data = OPAQUE[name]
    assert same(decode_image(data, LIMITS), plain(data).convert("RGB"))


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_is_white(name: str) -> None:
    data = TRANSPARENT[name]
    seen = plain(data).convert("RGBA").getchannel("A").getextrema()[0]
    assert seen < 255, "the file holds no transparency"
    assert same(decode_image(data, LIMITS), on_white(plain(data)), tolerance=1)


def test_full_transparency_is_exact() -> None:
    image = COLOUR.copy()
    image.putalpha(Image.fromarray(np.where(np.arange(108).reshape(9, 12) % 2, 255, 0).astype(np.uint8)))
    pixels = np.asarray(decode_image(encode(image, "PNG"), LIMITS)).reshape(-1, 3)
    assert (pixels[::2] == 255).all()
    assert np.array_equal(pixels[1::2], np.asarray(COLOUR).reshape(-1, 3)[1::2])


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_every_mode(mode: str) -> None:
    via = {"La": "LA", "RGBa": "RGBA", "PA": "P"}.get(mode)
    image = ALPHA.convert(via).convert(mode) if via else ALPHA.convert(mode)
    back = image.convert(mode.upper()) if mode.endswith("a") else image
    expected = on_white(back) if image.has_transparency_data else image.convert("RGB")
    assert same(to_rgb(image), expected, tolerance=1)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand; rows: with the filter bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in parts)


class TestSixteenBits:
    def test_grey_is_scaled(self) -> None:
        values = [0, 255, 256, 0x1234, 0x8000, 0xFFFF]
        data = png(6, 1, 16, 0, b"\0" + struct.pack(">6H", *values))
        assert np.asarray(decode_image(data, LIMITS))[0, :, 0].tolist() == [value >> 8 for value in values]

    def test_grey_with_a_transparent_value(self) -> None:
        data = png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 0x1234, 0x1235, 0), (b"tRNS", struct.pack(">H", 0x1234)))
        assert np.asarray(decode_image(data, LIMITS))[0, :, 0].tolist() == [255, 0x12, 0]

    def test_grey_of_32_bits_is_taken_for_16(self) -> None:
        image = Image.fromarray(np.array([[-5, 0x1234, 70_000]], np.int32))
        assert image.mode == "I"
        assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 0x12, 0xFF]

    @pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
    def test_colours(self, colour: int, channels: int) -> None:
        pixel = [0x1234, 0x8000, 0xFEDC, 0xFFFF][:channels]
        pixel[-1] = 0xFFFF
        data = png(1, 1, 16, colour, b"\0" + struct.pack(f">{channels}H", *pixel))
        expected = [value >> 8 for value in (pixel[:3] if channels > 2 else pixel[:1] * 3)]
        assert np.asarray(decode_image(data, LIMITS))[0, 0].tolist() == expected

    @pytest.mark.parametrize("value", [0x1234, 0x0034])
    def test_a_transparent_colour(self, value: int) -> None:
        """It has 16 bits too: 0x0034 is the byte 0, not the byte 0x34."""
        pixels = [[value] * 3, [0x3400] * 3]
        rows = b"\0" + struct.pack(">6H", *pixels[0], *pixels[1])
        data = png(2, 1, 16, 2, rows, (b"tRNS", struct.pack(">3H", *pixels[0])))
        assert np.asarray(decode_image(data, LIMITS))[0].tolist() == [[255] * 3, [0x34] * 3]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encode(COLOUR, kind, exif=exif, **options)
    upright = decode_image(data, LIMITS)
    assert same(upright, ImageOps.exif_transpose(plain(data)).convert("RGB"))
    # The first stored row is, by the standard, at the top, top, bottom, bottom, left, right, right, left.
    stored = np.asarray(plain(data).convert("RGB"))[0]
    pixels = np.asarray(upright)
    side = [pixels[0], pixels[0, ::-1], pixels[-1, ::-1], pixels[-1], pixels[:, 0], pixels[:, -1], pixels[::-1, -1]]
    assert np.array_equal([*side, pixels[::-1, 0]][orientation - 1], stored)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12", b"Exif\0\0II*\0" + b"\xff" * 40]
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_does_not_matter(exif: bytes) -> None:
    data = encode(COLOUR, "JPEG", exif=exif) if exif else OPAQUE["jpeg"]
    assert same(decode_image(data, LIMITS), plain(OPAQUE["jpeg"]).convert("RGB"))


def test_metadata_that_cannot_be_read_does_not_matter() -> None:
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n 4\nno hexadecimal digits")
    data = encode(COLOUR, "PNG", pnginfo=text)
    with pytest.raises(ValueError):
        plain(data).getexif()
    assert same(decode_image(data, LIMITS), COLOUR)


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_unknown_orientations(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert same(decode_image(encode(COLOUR, "PNG", exif=exif), LIMITS), COLOUR)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert plain(data).n_frames == 3
    assert same(decode_image(data, LIMITS), frames[0])


@pytest.mark.parametrize("name", EVERY)
def test_limits(name: str) -> None:
    data = EVERY[name]
    assert decode_image(data, ImageLimits(max_pixels=108, max_side=12)).size == (12, 9)
    assert "12 x 9 has more than 107 pixels" in refused(data, ImageLimits(max_pixels=107))
    assert "a side of more than 11 pixels" in refused(data, ImageLimits(max_side=11))


@pytest.mark.parametrize("size", [(50_000, 50_000), (8_193, 8_192), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_bombs_are_refused_by_their_header(size: tuple[int, int]) -> None:
    """The file has no pixels: the message is about the size because they are not read."""
    assert "pixels" in refused(png(*size, 8, 2, b""))


@pytest.mark.parametrize("size", [(16_384, 16_384), (10_000, 10_000)])
def test_webp_bombs(size: tuple[int, int]) -> None:
    width, height = (struct.pack("<I", side - 1)[:3] for side in size)
    body = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + width + height
    data = b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    message = refused(data)
    assert "pixels" in message or "damaged" in message


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_no_pixels_at_all(size: tuple[int, int]) -> None:
    refused(png(*size, 8, 2, b""))
    bmp = bytearray(OPAQUE["bmp"])
    bmp[18:26] = struct.pack("<ii", *size)
    refused(bytes(bmp))


def test_a_jpeg_of_very_many_scans() -> None:
    data = OPAQUE["jpeg-progressive"]
    last = data[data.rindex(b"\xff\xda") : -2]
    scans = data.count(b"\xff\xda")
    most = data[:-2] + last * (MAX_SCANS - scans) + data[-2:]
    assert same(decode_image(most, LIMITS), plain(data).convert("RGB"), tolerance=255)
    assert f"more than {MAX_SCANS} scans" in refused(data[:-2] + last * (MAX_SCANS - scans + 1) + data[-2:])
    # A file after the image (phones append videos) is not part of it, nor is a preview in the metadata.
    assert same(decode_image(data + b"\0\0" + last * 100, LIMITS), plain(data).convert("RGB"))
    preview = b"\xff\xe5" + struct.pack(">H", 402) + b"\xff\xda\0\x02" * 100
    assert same(decode_image(data[:2] + preview + data[2:], LIMITS), plain(data).convert("RGB"))
    # Bytes that libjpeg passes over must not hide what follows.
    hidden = data[:-2] + b"\xff\x02\xff\xff" + last * MAX_SCANS + data[-2:]
    assert f"more than {MAX_SCANS} scans" in refused(hidden)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encode(COLOUR, "TIFF"), "TIFF"),
        (encode(COLOUR, "ICO"), "ICO"),
        (encode(COLOUR, "JPEG2000"), "JPEG 2000"),
        (encode(COLOUR, "AVIF"), "AVIF"),
        (encode(COLOUR, "PDF"), "PDF"),
        (encode(COLOUR, "PPM"), "not JPEG, PNG, WebP, GIF or BMP"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\n <!DOCTYPE html><title>Sign in</title>", "HTML"),
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
    ],
)
def test_what_it_is_instead(data: bytes, name: str) -> None:
    assert name in refused(data)


@pytest.mark.parametrize("name", EVERY)
def test_truncated_files_are_refused(name: str) -> None:
    data = EVERY[name]
    refused(data[: len(data) // 2])
    refused(data[:20])


def decoded_or_refused(data: bytes) -> None:
    try:
        image = decode_image(data, ImageLimits(max_pixels=100_000))
    except RequestError as error:
        assert error.param == "messages"
    else:
        assert image.mode == "RGB" and image.width * image.height <= 100_000


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(EVERY)), st.data())
def test_damaged_files_are_refused_or_shown(name: str, draw: st.DataObject) -> None:
    data = bytearray(EVERY[name])
    if draw.draw(st.booleans()):
        del data[draw.draw(st.integers(0, len(data))) :]
    for _ in range(draw.draw(st.integers(0, 8))):
        if data:
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    decoded_or_refused(bytes(data))


STARTS = [
    b"\xff\xd8\xff\xe0",
    b"\xff\xd8\xff\xda",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    b"GIF89a",
    b"BM",
    b"RIFF\x40\0\0\0WEBPVP8 ",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*STARTS, b""]), st.binary(max_size=200))
def test_random_bytes(start: bytes, data: bytes) -> None:
    decoded_or_refused(start + data)


def test_no_warnings_leak(tmp_path: Path) -> None:
    """In a process of its own: pytest has filters of its own."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"
    (tmp_path / "exif").write_bytes(encode(COLOUR, "JPEG", exif=exif))
    (tmp_path / "large").write_bytes(png(10_000, 10_000, 8, 2, b""))
    code = """if True:
        import sys
        from pathlib import Path
        from PIL import Image
        from preprocessing.images.decode import ImageLimits, RequestError, decode_image
        for path in map(Path, sys.argv[1:]):
            try:
                decode_image(path.read_bytes(), ImageLimits())
            except RequestError as error:
                assert "67108864" in error.message, error.message
            assert path.name == "exif" or Image.MAX_IMAGE_PIXELS < 10_000 * 10_000
    """
    files = [str(tmp_path / "exif"), str(tmp_path / "large")]
    done = subprocess.run([sys.executable, "-W", "always", "-c", code, *files], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
