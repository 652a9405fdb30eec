# SPDX-License-Identifier: Apache-2.0
"""OpenAI chat messages in the form that Hugging Face chat templates read.

Every template accepts `content` as a string and tool-call arguments as an object; many accept nothing else. So text
parts are joined, null becomes "", `developer` becomes `system`, and arguments become objects.
"""

from collections.abc import Callable, Sequence
from typing import Any

from common.chat.arguments import read_arguments
from common.chat.media import read_part_options
from common.chat.parts import Content, Kind, MediaPart, Placed
from common.checks import PositionError, expect, expect_one_of

Message = dict[str, Any]

# OpenAI role -> the role that templates know.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# Roles whose messages may have images; a tool's result may be one.
MEDIA_ROLES = ("user", "tool")
MEDIA: dict[str, Kind] = {"image_url": "image", "video_url": "video"}
# Parts of audio, in OpenAI's form and in vLLM's.
AUDIO = ("input_audio", "audio_url")
DETAILS = ("auto", "low", "high", "original")
# vLLM answers with `reasoning`, SGLang and DeepSeek with `reasoning_content`, the name that templates read.
REASONING = ("reasoning_content", "reasoning")

# A message's texts and media, and its position for errors -> its text with markers for the media.
Place = Callable[[Sequence[str | MediaPart], str], Placed]
# A string, object or array of a message and the message's role -> the same for the prompt, without special tokens.
Escape = Callable[[Any, str], Any]


def escape_nothing(value: Any, role: str) -> Any:
    """The `Escape` of chats that spell no special tokens."""
    return value


def normalize_messages(
    value: Any, place: Place, escape: Escape = escape_nothing
) -> tuple[list[Message], tuple[MediaPart, ...]]:
    """The messages with text as their content, and the media in the order of their markers.

    place: the model family's way to write markers. escape: applied to all text before that.
    Raises RequestError (param "messages") naming the invalid position.
    """
    messages = expect(value, list, "messages")
    if not messages:
        raise PositionError("messages", "must not be empty")
    parts: list[MediaPart] = []
    normal = [_normalize(message, f"messages[{index}]", place, escape, parts) for index, message in enumerate(messages)]
    return normal, tuple(parts)


def place_nothing(content: Sequence[str | MediaPart], where: str) -> Placed:
    """The `Place` of a text model, which refuses media."""
    if any(isinstance(part, MediaPart) for part in content):
        raise PositionError(where, "has an image, and the served model takes no images")
    return Placed(join_texts(content), ())


def join_texts(content: Content) -> str:
    """The texts of a message, one after the other in lines of their own."""
    return "\n".join(part for part in content if isinstance(part, str))


def check_message(value: Any, where: str) -> Message:
    """The message without null fields, after the checks that need no model family.

    Its content is a string, or a list with a string for each text and a MediaPart for each image or video.
    Raises PositionError if a field that is read has the wrong type or value.
    """
    # openai-python sends an answer's unused fields back as nulls; a template would take them for values.
    message = {name: field for name, field in expect(value, dict, where).items() if field is not None}
    role = message.get("role")
    # Positions are only written if something is wrong: a chat may have many thousand messages and parts.
    if type(role) is not str or role not in ROLES:
        role = expect_one_of(role, ROLES, f"{where}.role")
    if type(message.get("content")) is not str:
        content = message["content"] = _content(message.get("content"), role, f"{where}.content")
        if role not in MEDIA_ROLES and any(isinstance(part, MediaPart) for part in content):
            problem = f"has an image or a video, which {ROLES[role]} messages may not have"
            raise PositionError(f"{where}.content", problem)
    _check_text(message, "name", where)
    if role == "assistant":
        # Of the two names of reasoning, the first that is given is read.
        for name in REASONING:
            if name in message:
                _check_text(message, name, where)
                break
        if "tool_calls" in message:
            for index, call in enumerate(expect(message["tool_calls"], list, f"{where}.tool_calls")):
                _check_call(call, f"{where}.tool_calls[{index}]")
    elif role == "tool":
        _check_text(message, "tool_call_id", where)
    return message


def _check_text(value: Message, name: str, where: str) -> None:
    if value.get(name) is not None:
        expect(value[name], str, f"{where}.{name}")


def _content(content: Any, role: str, where: str) -> str | list[str | MediaPart]:
    if isinstance(content, list):
        return [_part(part, where, index) for index, part in enumerate(content)]
    # An answer may consist of tool calls or reasoning, and some tools return nothing. Templates read "" but not null.
    if content is None:
        if role in ("assistant", "tool"):
            return ""
        raise PositionError(where, "is missing")
    raise PositionError(where, "must be a string or an array of parts")


def _part(value: Any, content: str, index: int) -> str | MediaPart:
    if type(value) is dict and value.get("type") == "text" and type(value.get("text")) is str:
        return str(value["text"])
    where = f"{content}[{index}]"
    part = expect(value, dict, where)
    if part.get("type") == "refusal":  # A part of an earlier answer.
        return expect(part.get("refusal"), str, f"{where}.refusal")
    if part.get("type") in AUDIO:
        raise PositionError(f"{where}.type", f"is {part['type']}: audio is not supported")
    kind = expect_one_of(part.get("type"), ("text", *MEDIA), f"{where}.type")
    if kind == "text":
        return expect(part.get("text"), str, f"{where}.text")
    # The URL is read by the frontend; the file itself is an element of the `images` tensor.
    given = part.get(kind)
    detail = given.get("detail") if isinstance(given, dict) else None
    detail = "auto" if detail is None else expect_one_of(detail, DETAILS, f"{where}.{kind}.detail")
    return MediaPart(MEDIA[kind], detail, read_part_options(part, kind, MEDIA[kind], where))


def _check_call(value: Any, where: str) -> None:
    call = expect(value, dict, where)
    if call.get("type") is not None:
        expect_one_of(call["type"], ("function",), f"{where}.type")
    function = expect(call.get("function"), dict, f"{where}.function")
    expect(function.get("name"), str, f"{where}.function.name")
    if isinstance(function.get("arguments"), bool | int | float):
        raise PositionError(f"{where}.function.arguments", "must be a string")
    _check_text(call, "id", where)


def _normalize(value: Any, where: str, place: Place, escape: Escape, parts: list[MediaPart]) -> Message:
    message = check_message(value, where)
    role = ROLES[message["role"]]
    given = [message["content"]] if isinstance(message["content"], str) else message["content"]
    content = [escape(part, role) if isinstance(part, str) else part for part in given]
    placed = (place if role in MEDIA_ROLES else place_nothing)(content, f"{where}.content")
    parts += placed.parts
    fields: Message = {}
    reasoning = None
    if "name" in message:
        fields["name"] = message["name"]
    if role == "assistant":
        reasoning = next((message[name] for name in REASONING if name in message), None)
        if calls := message.get("tool_calls"):
            fields["tool_calls"] = [
                _normalize_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(calls)
            ]
    elif role == "tool" and "tool_call_id" in message:
        fields["tool_call_id"] = message["tool_call_id"]
    # Only the text and the thoughts of an answer may hold its markup; a name or an argument that spells it is text.
    fields = escape(fields, "system")
    if reasoning is not None:
        fields["reasoning_content"] = escape(reasoning, role)
    return {"role": role, "content": placed.text, **fields}


def _normalize_call(call: Message, where: str) -> Message:
    function = call["function"]
    arguments = read_arguments(function.get("arguments"), f"{where}.function.arguments")
    normal: Message = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    if call.get("id") is not None:
        normal["id"] = call["id"]
    return normal
