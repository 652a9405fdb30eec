# SPDX-License-Identifier: Apache-2.0
"""`data:` URLs, read as browsers read them (WHATWG Fetch, "data: URL processor" and "forgiving-base64 decode")."""

import base64
import re
from urllib.parse import unquote_to_bytes

from frontend.images.limits import FetchError

_BASE64 = re.compile(r"; *base64$", re.IGNORECASE)
_WHITESPACE = b" \t\n\f\r"


def decode_data_url(url: str) -> bytes:
    """Decode the bytes of a data: URL. Its media type is ignored, as the bytes show what they are.

    Raises FetchError if the URL is malformed.
    """
    header, comma, data = url.partition("#")[0].partition(",")
    if not comma:
        raise FetchError("its data: URL has no comma before the data")
    try:
        body = unquote_to_bytes(data)
    except UnicodeEncodeError:
        raise FetchError("its data: URL is not Unicode") from None
    return _decode_base64(body) if _BASE64.search(header.strip()) else body


def _decode_base64(data: bytes) -> bytes:
    data = data.translate(None, _WHITESPACE)
    if len(data) % 4 == 0:
        data = data[:-2] + data[-2:].rstrip(b"=")
    try:
        if b"=" in data:
            raise ValueError("padding that is too short or in the middle")
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except ValueError:
        raise FetchError("its data: URL holds no valid base64") from None
