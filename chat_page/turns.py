# SPDX-License-Identifier: Apache-2.0
"""Turns of a conversation, and the OpenAI messages that they are sent as."""

import base64
import json
import mimetypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openai.types.chat import ChatCompletionChunk
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall

# Those that Python's table lacks.
_MORE_TYPES = {".mkv": "video/x-matroska"}


class PageError(Exception):
    """An error that the visitor can fix. Its text is shown to them."""


@dataclass(slots=True)
class Call:
    """A tool call. The arguments are JSON text, which is incomplete while the answer grows."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True, eq=False)
class Turn:
    """One message of the conversation.

    role: user, assistant or tool. files: pictures and videos, owned by this process. calls: the assistant's tool calls.
    call: the call that a tool's turn answers. note: the page's own remark on this turn.
    """

    role: str
    text: str = ""
    files: tuple[Path, ...] = ()
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    call: Call | None = None
    note: str = ""

    @property
    def empty(self) -> bool:
        """Whether no part of an answer has arrived."""
        return not (self.text or self.reasoning or self.calls)

    def take(self, chunk: ChatCompletionChunk) -> None:
        """Append a chunk of the client's stream."""
        for choice in chunk.choices:
            delta = choice.delta
            self.text += delta.content or ""
            self.reasoning += getattr(delta, "reasoning_content", None) or ""
            for piece in delta.tool_calls or ():
                self._take_call(piece)
            if choice.finish_reason == "length":
                self.note = "The answer was cut off: it reached the most tokens allowed."

    def _take_call(self, piece: ChoiceDeltaToolCall) -> None:
        while len(self.calls) <= piece.index:
            self.calls.append(Call())
        call = self.calls[piece.index]
        call.id += piece.id or ""
        if piece.function is not None:
            call.name += piece.function.name or ""
            call.arguments += piece.function.arguments or ""


def open_calls(turns: Sequence[Turn]) -> list[Call]:
    """List the tool calls at the end of the conversation that have no result yet, in order."""
    answered = set()
    for turn in reversed(turns):
        if turn.call is None:
            return [call for call in turn.calls if call.id not in answered]
        answered.add(turn.call.id)
    return []


def message(turn: Turn) -> dict[str, Any]:
    """Convert the turn to an OpenAI message. Raises PageError if a file no longer exists."""
    if turn.call is not None:
        return {"role": "tool", "tool_call_id": turn.call.id, "content": turn.text}
    if turn.calls:
        return {"role": turn.role, "content": turn.text or None, "tool_calls": [_call(call) for call in turn.calls]}
    if not turn.files:
        return {"role": turn.role, "content": turn.text}
    parts = [_part(path) for path in turn.files]
    if turn.text:
        parts.append({"type": "text", "text": turn.text})
    return {"role": turn.role, "content": parts}


def _part(path: Path) -> dict[str, Any]:
    # OpenAI's API has no `video_url`; vLLM and others add it, as this project's server does.
    kind = "video_url" if _media_type(path).startswith("video/") else "image_url"
    return {"type": kind, kind: {"url": data_url(path)}}


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def data_url(path: Path) -> str:
    """Encode the file as a data: URL, with the media type of its suffix. Raises PageError if it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        raise PageError("A file of this conversation is no longer kept here. Begin a new chat.") from None
    return f"data:{_media_type(path)};base64,{base64.b64encode(data).decode()}"


def _media_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or _MORE_TYPES.get(path.suffix.lower(), "application/octet-stream")


def read_tools(text: str) -> list[dict[str, Any]]:
    """Read the tools field: JSON, a list of OpenAI tools or bare functions. Raises PageError if it is not valid."""
    if not text.strip():
        return []
    try:
        tools = json.loads(text)
    except ValueError as error:
        raise PageError(f"The tools are no JSON: {error}.") from None
    if isinstance(tools, dict):
        tools = [tools]
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise PageError("The tools must be a JSON list of functions.")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
