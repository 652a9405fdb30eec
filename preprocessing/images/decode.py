# SPDX-License-Identifier: Apache-2.0
"""Decodes images to RGB pixels: upright, transparency on white, 16 bits scaled to 8."""

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.WebPImagePlugin import (
    WebPImageFile,  # registers WebP, which Image.open does not do by itself for a list of formats
)

from common.errors import RequestError

FORMATS = ("JPEG", "PNG", WebPImageFile.format, "GIF", "BMP")

# A progressive JPEG may have any number of scans of a few bytes, and each is a pass over the whole image: at 64
# megapixels 100 bytes took 50 ms, so 20 MB would take hours. Encoders write 6 to 12.
MAX_SCANS = 64

# The first bytes of files of other formats, for the error message only.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF"),
    (rb".{4}ftypavi[fs]", "AVIF"),
    (rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", "HEIC"),
    (rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "a video"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
    (rb"\0\0[\1\2]\0", "ICO"),
    (rb"8BPS", "PSD"),
    (rb"%PDF-", "PDF"),
    (rb"\xef?\xbb?\xbf?\s*<(\?xml|svg)", "SVG or XML"),
    (rb"\xef?\xbb?\xbf?\s*<(!doctype|html|head|body)", "HTML"),
)

# EXIF orientation -> the transposition that makes the image upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

# Pillow warns of damaged metadata and of large images; here metadata does not matter and sizes have their own limit.
# Filtered once and not around each call: `catch_warnings` is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of the size of an image or a video frame, as stored (before it is turned upright).

    max_pixels: width times height; decoding takes up to 13 bytes per pixel (grey with alpha; 9 for RGBA, 4 for RGB).
    max_side: the longer side in pixels; resizing a narrow strip takes memory by its length.

    Pillow itself refuses images above 2 * PIL.Image.MAX_IMAGE_PIXELS (178,956,970) pixels, whatever is set here.
    """

    max_pixels: int = 64 * 2**20
    max_side: int = 32_768

    def check(self, width: int, height: int, what: str = "an image") -> None:
        """Raise RequestError if a size is beyond the limits or not positive."""
        if width < 1 or height < 1:
            raise media_error(f"{what} has no pixels")
        if width * height > self.max_pixels:
            raise media_error(f"{what} of {width} x {height} has more than {self.max_pixels} pixels")
        if max(width, height) > self.max_side:
            raise media_error(f"{what} of {width} x {height} has a side of more than {self.max_side} pixels")


def decode_image(data: bytes, limits: ImageLimits) -> Image.Image:
    """The first frame of a JPEG, PNG, WebP, GIF or BMP file, mode RGB.

    Sizes are checked before pixels are decoded; a truncated file is refused. Raises RequestError (param "messages").
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            limits.check(*image.size)
            if image.format in ("JPEG", "MPO"):
                _check_scans(data)
            sixteen_bit = "16B" in str(image.tile)
            image.load()
            return to_rgb(_upright(image), sixteen_bit=sixteen_bit)
    except RequestError:
        raise
    except UnidentifiedImageError:
        raise media_error(_unknown(data)) from None
    except Image.DecompressionBombError:
        raise media_error(f"an image has more than {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels") from None
    except MemoryError:
        raise media_error("an image takes more memory to decode than there is") from None
    except Exception:  # Damaged bytes raise many types: OSError, SyntaxError, struct.error, ...
        raise media_error("an image is damaged or cut off and cannot be decoded") from None


def to_rgb(image: Image.Image, *, sixteen_bit: bool = False) -> Image.Image:
    """A loaded image of any mode as RGB, its transparent parts on white.

    sixteen_bit: the file holds 16 bits a channel, so that a transparent colour in `info` is of 16 bits too.
    """
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    colour = image.info.get("transparency")
    if sixteen_bit and isinstance(colour, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    if image.mode != "RGBA":
        image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte, as Pillow itself reads coloured 16-bit images."""
    values = np.asarray(image)
    grey = (values.clip(0, 0xFFFF) >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Damaged metadata does not make an image unreadable; browsers ignore it too.
        return image
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _check_scans(data: bytes) -> None:
    """Raise RequestError if the first JPEG in `data` has more than MAX_SCANS scans."""
    at, scans = 2, 0
    # The markers that libjpeg acts on. In a scan's data it skips the others, such as restart markers.
    marker = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
    while (found := marker.search(data, at)) and (kind := found[1][0]) != 0xD9:
        at = found.end()
        if kind == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise media_error(f"a JPEG image has more than {MAX_SCANS} scans")
        at += int.from_bytes(data[at : at + 2], "big")


def _unknown(data: bytes) -> str:
    if not data:
        return "an image is empty"
    for pattern, name in _OTHERS:
        if re.match(pattern, data[:64], re.IGNORECASE | re.DOTALL):
            return f"an image is {name}; only JPEG, PNG, WebP, GIF and BMP are supported"
    return "an image is not JPEG, PNG, WebP, GIF or BMP, or its header is damaged"


def media_error(problem: str) -> RequestError:
    """An error about an image or a video of the messages."""
    return RequestError(f"messages: {problem}", param="messages")
