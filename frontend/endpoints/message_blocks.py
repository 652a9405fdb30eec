# SPDX-License-Identifier: Apache-2.0
"""The content blocks of an answer of `/v1/messages`, whole and as events: thinking, text and calls of tools."""

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from common.chat.arguments import NO_OBJECT, read_arguments
from frontend.triton.deltas import complete_tool_calls
from frontend.triton.tensors import Delta

# Thinking is not signed: the text placed here is the same for all, and no signature that comes back is checked.
SIGNATURE = "unsigned"

# Kind of a block -> the type of its deltas and their field.
_DELTAS = {
    "thinking": ("thinking_delta", "thinking"),
    "text": ("text_delta", "text"),
    "tool_use": ("input_json_delta", "partial_json"),
}


def event(kind: str, fields: dict[str, Any]) -> bytes:
    """Return a server-sent event."""
    data = orjson.dumps({"type": kind, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def whole_content(answer: Delta, *, show_thinking: bool) -> list[dict[str, Any]]:
    """Return the blocks of a whole answer. show_thinking: thinking has its text."""
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        text = answer.reasoning if show_thinking else ""
        content.append({"type": "thinking", "thinking": text, "signature": SIGNATURE})
    if answer.text:
        content.append({"type": "text", "text": answer.text})
    for call in complete_tool_calls(answer.tool_calls):
        function = call["function"]
        arguments = _input(function["arguments"])
        content.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments})
    return content


def _input(text: str) -> dict[str, Any]:
    """Return the arguments of a call as an object that JSON can write; those of a cut call up to the cut."""
    readers: tuple[Callable[[str], Any], ...] = (orjson.loads, partial(read_arguments, where="input"))
    for read in readers:
        try:
            value = read(text)
            orjson.dumps(value)
        except (ValueError, TypeError):
            continue
        if isinstance(value, dict):
            return value
    return {NO_OBJECT: text}


class BlockEvents:
    """Writes the events of the blocks of one answer. Each block is open until another begins.

    Raises RuntimeError for arguments of a tool call that is not open: clients could not tell whose they are.
    """

    def __init__(self, *, show_thinking: bool) -> None:
        self._show_thinking = show_thinking
        self._index = -1
        self._kind: str | None = None
        self._call: int | None = None  # index of the last call
        self._prefix = b""

    def feed(self, delta: Delta) -> bytes:
        """Return the events of a delta."""
        frames = b""
        calls = delta.tool_calls
        # The rest of the call that is open comes before what follows it in a merged delta.
        while calls and self._kind == "tool_use" and "id" not in calls[0]:
            frames += self._add_call(calls[0])
            calls = calls[1:]
        if delta.reasoning:
            frames += self._add("thinking", delta.reasoning)
        if delta.text:
            frames += self._add("text", delta.text)
        for call in calls:
            frames += self._add_call(call)
        return frames

    def close(self) -> bytes:
        """End the open block, if there is one, and return the events of its end."""
        kind, self._kind = self._kind, None
        if kind is None:
            return b""
        at = {"index": self._index}
        end = event("content_block_stop", at)
        if kind != "thinking":
            return end
        return event("content_block_delta", at | {"delta": {"type": "signature_delta", "signature": SIGNATURE}}) + end

    def _add_call(self, call: dict[str, Any]) -> bytes:
        frames = b""
        if "id" in call:
            self._call = call["index"]
            block = {"type": "tool_use", "id": call["id"], "name": call["function"]["name"], "input": {}}
            frames = self.close() + self._begin("tool_use", block)
        elif self._kind != "tool_use" or call["index"] != self._call:
            raise RuntimeError("arguments of a tool call that is not open")
        arguments = call["function"].get("arguments")
        return frames + self._add("tool_use", arguments) if arguments else frames

    def _add(self, kind: str, text: str) -> bytes:
        frames = b""
        if self._kind != kind:
            block = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
            frames = self.close() + self._begin(kind, block)
        if kind == "thinking" and not self._show_thinking:
            return frames
        return frames + self._prefix + orjson.dumps(text) + b"}}\n\n"

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        self._index += 1
        self._kind = kind
        delta, field = _DELTAS[kind]
        start = event("content_block_delta", {"index": self._index, "delta": {"type": delta}})
        # Only the text changes between the deltas of a block.
        self._prefix = start.removesuffix(b"}}\n\n") + b',"' + field.encode() + b'":'
        return event("content_block_start", {"index": self._index, "content_block": block})
