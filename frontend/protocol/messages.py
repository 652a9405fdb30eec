# SPDX-License-Identifier: Apache-2.0
"""The messages of a chat: checked, and freed of what is not for the chat template."""

from collections.abc import Sequence
from typing import Any

from common.chat.messages import DETAILS
from common.errors import RequestError

ROLES = ("system", "developer", "user", "assistant", "tool")


class VideoUrl(str):
    """The URL of a video. It is fetched as an image's is, within a video's limits."""


def clean_messages(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The messages without null fields, and the URLs of their images and videos in order.

    Such a part keeps its place but not its URL: the file itself travels as a tensor.
    Raises RequestError naming the field at fault.
    """
    urls: list[str] = []
    return [_clean(message, f"messages[{at}]", urls) for at, message in enumerate(messages)], urls


def _clean(message: dict[str, Any], where: str, urls: list[str]) -> dict[str, Any]:
    # openai-python gives an answer's unused fields back as nulls; a template would take them for values.
    cleaned = {name: value for name, value in message.items() if value is not None}
    role = cleaned.get("role")
    if role not in ROLES:
        raise RequestError(f"{where}.role must be one of {', '.join(ROLES)}", param=f"{where}.role")
    if "function_call" in cleaned:
        raise RequestError("'function_call' is not supported; use 'tool_calls'", param=f"{where}.function_call")
    if "tool_calls" in cleaned:
        _check_tool_calls(cleaned["tool_calls"], f"{where}.tool_calls")
    content = cleaned.get("content")
    if isinstance(content, list):
        cleaned["content"] = [_clean_part(part, f"{where}.content[{at}]", urls) for at, part in enumerate(content)]
    elif content is None and role == "assistant":
        # Templates test the content of an assistant's message for truth, or index it.
        cleaned["content"] = ""
    elif not isinstance(content, str):
        raise RequestError(f"{where}.content must be a text or a list of parts", param=f"{where}.content")
    return cleaned


def _check_tool_calls(calls: Any, where: str) -> None:
    wanted = "must be a list of objects with a function that has a name and arguments"
    if not isinstance(calls, list):
        raise RequestError(f"{where} {wanted}", param=where)
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RequestError(f"{where} {wanted}", param=where)
        if not isinstance(function.get("arguments", ""), str | dict):
            raise RequestError(f"{where} {wanted}", param=where)


def _clean_part(part: Any, where: str, urls: list[str]) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "refusal"):
        text = part.get(kind)
        if not isinstance(text, str):
            raise RequestError(f"{where}.{kind} must be a text", param=f"{where}.{kind}")
        return {"type": "text", "text": text}
    if kind == "image_url":
        urls.append(_url(part, kind, where))
        return {"type": kind, kind: _detail(part[kind], f"{where}.{kind}.detail")}
    if kind == "video_url":
        urls.append(VideoUrl(_url(part, kind, where)))
        return {"type": kind, kind: {}}
    raise RequestError(f"{where}.type must be text, image_url or video_url", param=f"{where}.type")


def _url(part: dict[str, Any], kind: str, where: str) -> str:
    """The URL of a part, given as it is or in an object."""
    given = part.get(kind)
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str):
        raise RequestError(f"{where}.{kind}.url must be a text", param=f"{where}.{kind}.url")
    return url


def _detail(image: Any, where: str) -> dict[str, str]:
    """`detail`, which says how finely an image is to be cut up, where the request has it."""
    detail = image.get("detail") if isinstance(image, dict) else None
    if detail is None:
        return {}
    if detail not in DETAILS:
        raise RequestError(f"{where} must be one of {', '.join(DETAILS)}", param=where)
    return {"detail": detail}
