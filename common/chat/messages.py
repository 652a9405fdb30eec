# SPDX-License-Identifier: Apache-2.0
"""OpenAI chat messages in the form that Hugging Face chat templates read.

Every template accepts `content` as a string and tool-call arguments as an object; many accept nothing else. So text
parts are joined, null becomes "", `developer` becomes `system`, and argument strings are parsed.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from common.chat.parts import Kind, MediaPart, Placed
from common.checks import error_at, expect, expect_one_of

Message = dict[str, Any]

# OpenAI role -> the role that templates know.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# Roles whose messages may have images; a tool's result may be one.
MEDIA_ROLES = ("user", "tool")
MEDIA: dict[str, Kind] = {"image_url": "image", "video_url": "video"}
DETAILS = ("auto", "low", "high")


# A message's texts and media, and its position for errors -> its text with markers for the media.
Place = Callable[[Sequence[str | MediaPart], str], Placed]


def normalize_messages(value: Any, place: Place) -> tuple[list[Message], tuple[MediaPart, ...]]:
    """The messages with text as their content, and the media in the order of their markers.

    place: the model family's way to write markers. Raises RequestError (param "messages") naming the invalid position.
    """
    messages = expect(value, list, "messages")
    if not messages:
        raise error_at("messages", "must not be empty")
    parts: list[MediaPart] = []
    normal = [_message(message, f"messages[{index}]", place, parts) for index, message in enumerate(messages)]
    return normal, tuple(parts)


def place_nothing(content: Sequence[str | MediaPart], where: str) -> Placed:
    """The `Place` of a text model, which refuses media."""
    if any(isinstance(part, MediaPart) for part in content):
        raise error_at(where, "has an image, and the served model takes no images")
    return Placed("\n".join(part for part in content if isinstance(part, str)), ())


def _message(value: Any, where: str, place: Place, parts: list[MediaPart]) -> Message:
    message = expect(value, dict, where)
    role = ROLES[expect_one_of(message.get("role"), ROLES, f"{where}.role")]
    content = _content(message, role, where)
    if role in MEDIA_ROLES:
        placed = place(content, f"{where}.content")
        parts += placed.parts
    else:
        placed = place_nothing(content, f"{where}.content")
    normal: Message = {"role": role, "content": placed.text}
    _copy_text(message, normal, "name", where)
    if role == "assistant":
        _copy_reasoning(message, normal, where)
        calls = message.get("tool_calls")
        if calls:
            normal["tool_calls"] = _tool_calls(calls, f"{where}.tool_calls")
    elif role == "tool":
        _copy_text(message, normal, "tool_call_id", where)
    return normal


def _content(message: Message, role: str, where: str) -> list[str | MediaPart]:
    content = message.get("content")
    where = f"{where}.content"
    if isinstance(content, str):
        return [content]
    if isinstance(content, list):
        return [_part(part, f"{where}[{index}]") for index, part in enumerate(content)]
    if content is None:
        if role == "assistant":  # The message may consist of tool calls or reasoning.
            return []
        raise error_at(where, "is missing")
    raise error_at(where, "must be a string or an array of parts")


def _part(value: Any, where: str) -> str | MediaPart:
    part = expect(value, dict, where)
    kind = expect_one_of(part.get("type"), ("text", *MEDIA), f"{where}.type")
    if kind == "text":
        return expect(part.get("text"), str, f"{where}.text")
    # The URL is read by the frontend; the file itself is an element of the `images` tensor.
    given = part.get(kind)
    detail = given.get("detail") if isinstance(given, dict) else None
    return MediaPart(MEDIA[kind], expect_one_of(detail or "auto", DETAILS, f"{where}.{kind}.detail"))


def _copy_reasoning(message: Message, normal: Message, where: str) -> None:
    # vLLM answers with `reasoning`, SGLang and DeepSeek with `reasoning_content`, the name that templates read.
    for name in ("reasoning_content", "reasoning"):
        if message.get(name) is not None:
            normal["reasoning_content"] = expect(message[name], str, f"{where}.{name}")
            return


def _copy_text(message: Message, normal: Message, name: str, where: str) -> None:
    if message.get(name) is not None:
        normal[name] = expect(message[name], str, f"{where}.{name}")


def _tool_calls(value: Any, where: str) -> list[Message]:
    return [_tool_call(call, f"{where}[{index}]") for index, call in enumerate(expect(value, list, where))]


def _tool_call(value: Any, where: str) -> Message:
    call = expect(value, dict, where)
    expect_one_of(call.get("type", "function"), ("function",), f"{where}.type")
    function = expect(call.get("function"), dict, f"{where}.function")
    name = expect(function.get("name"), str, f"{where}.function.name")
    arguments = _arguments(function.get("arguments"), f"{where}.function.arguments")
    normal: Message = {"type": "function", "function": {"name": name, "arguments": arguments}}
    _copy_text(call, normal, "id", where)
    return normal


def _arguments(value: Any, where: str) -> dict[str, Any]:
    if value is None or value == "":  # Some clients' form of a call without arguments.
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise error_at(where, "is not valid JSON") from None
    return expect(value, dict, where)
