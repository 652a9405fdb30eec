# SPDX-License-Identifier: Apache-2.0
"""The messages of a chat as the ensemble takes them, and the URLs of their images and videos."""

from collections.abc import Sequence
from typing import Any

from common.chat.messages import check_message
from common.chat.parts import MediaPart
from common.checks import PositionError
from common.errors import RequestError


class VideoUrl(str):
    """The URL of a video; it is fetched like an image, with the limits of videos."""


def clean_messages(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Check messages; return them without null fields, and the URLs of their images and videos in order.

    An image or video keeps its place and its options but not its URL: the file itself travels as a tensor.
    Raises RequestError naming the invalid field.
    """
    urls: list[str] = []
    try:
        return [_clean(message, f"messages[{at}]", urls) for at, message in enumerate(messages)], urls
    except PositionError as error:
        # The param is the position, for tool calls that of their list. The value that the client sent is not quoted.
        message, calls, _ = error.where.partition(".tool_calls")
        raise RequestError(f"{error.where} {error.problem}", param=message + calls) from None


def _clean(message: dict[str, Any], where: str, urls: list[str]) -> dict[str, Any]:
    cleaned = check_message(message, where)
    if "function_call" in cleaned:
        raise RequestError("'function_call' is not supported; use 'tool_calls'", param=f"{where}.function_call")
    if isinstance(message.get("content"), list):
        pairs = zip(message["content"], cleaned["content"], strict=True)
        cleaned["content"] = [
            {"type": "text", "text": checked}
            if isinstance(checked, str)
            else _media(given, checked, f"{where}.content[{at}]", urls)
            for at, (given, checked) in enumerate(pairs)
        ]
    return cleaned


def _media(given: dict[str, Any], checked: MediaPart, where: str, urls: list[str]) -> dict[str, Any]:
    kind = given["type"]
    # The URL is given as a string, or in an object.
    media = given[kind] if isinstance(given.get(kind), dict) else {"url": given.get(kind)}
    url = media.get("url")
    if not isinstance(url, str):
        raise PositionError(f"{where}.{kind}.url", "must be a string")
    if checked.kind == "video":
        urls.append(VideoUrl(url))
        return {"type": kind, kind: dict(checked.options)}
    urls.append(url)
    detail: dict[str, Any] = {} if media.get("detail") is None else {"detail": checked.detail}
    return {"type": kind, kind: {**detail, **checked.options}}
