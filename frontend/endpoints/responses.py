# SPDX-License-Identifier: Apache-2.0
"""`/v1/responses`: a chat completion, written as response items and their events. Nothing is stored."""

import time
from typing import Any

import orjson

from common.errors import RequestError
from frontend.endpoints.chat import ChatPlan, plan_chat
from frontend.endpoints.responses_input import chat_body
from frontend.protocol.common import too_deep
from frontend.serving.answer import Plan, new_id
from frontend.serving.service import Service
from frontend.triton.tensors import Delta

Event = dict[str, Any]


async def plan_response(service: Service, raw: dict[str, Any]) -> "ResponsePlan":
    """Validate the body and map it to tensors; `chat_body` lists the refused fields."""
    return ResponsePlan(await plan_chat(service, chat_body(raw)), raw)


class ResponsePlan(Plan):
    """Writes streamed and whole answers with one state machine: a whole answer is its items without the events."""

    def __init__(self, chat: ChatPlan, raw: dict[str, Any]) -> None:
        self.id = new_id("resp")
        self.requests = chat.requests
        self.image_urls = chat.image_urls
        self.stream = chat.stream
        # The last events hold the usage, so they are always written.
        self.include_usage = True
        self.usage = chat.usage
        self._chat = chat
        self._items = Items()
        self._finish: str | None = None
        self._sequence = 0
        self._about = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "model": chat.model,
            "instructions": raw.get("instructions"),
            "max_output_tokens": raw.get("max_output_tokens"),
            "metadata": raw.get("metadata") or {},
            "parallel_tool_calls": raw.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": raw.get("temperature"),
            "text": raw.get("text") or {"format": {"type": "text"}},
            "tool_choice": raw.get("tool_choice") or "auto",
            "tools": raw.get("tools") or [],
            "top_p": raw.get("top_p"),
            "error": None,
        }
        try:
            orjson.dumps(self._about)
        except orjson.JSONEncodeError:
            # The answer repeats fields of the request.
            raise RequestError("The request is nested too deeply", param=too_deep(self._about)) from None

    def adapt(self, delta: Delta) -> Delta:
        return self._chat.adapt(delta)

    def first_chunks(self) -> bytes:
        begun = self._body("in_progress")
        kinds = ("response.created", "response.in_progress")
        return self._frames([{"type": kind, "response": begun} for kind in kinds])

    def chunks(self, choice: int, delta: Delta) -> bytes:
        return self._frames(self._feed(delta))

    def usage_chunk(self) -> bytes:
        status = self._status()
        return self._frames([{"type": f"response.{status}", "response": self._body(status)}])

    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        self._feed(answers[0])
        return self._body(self._status())

    def _feed(self, delta: Delta) -> list[Event]:
        events = self._items.feed(delta)
        if delta.finish_reason is not None:
            self._finish = delta.finish_reason
            events += self._items.close()
        return events

    def _status(self) -> str:
        return "incomplete" if self._finish == "length" else "completed"

    def _body(self, status: str) -> dict[str, Any]:
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        usage = None if status == "in_progress" else _usage(self.usage.body())
        output = self._items.done
        return self._about | {"status": status, "incomplete_details": incomplete, "output": output, "usage": usage}

    def _frames(self, events: list[Event]) -> bytes:
        frames = []
        for event in events:
            numbered = event | {"sequence_number": self._sequence}
            self._sequence += 1
            frames.append(b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(numbered) + b"\n\n")
        return b"".join(frames)


class Items:
    """The output items: reasoning, message and function calls. Each is open until another begins."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self._open: dict[str, Any] | None = None
        self._text = ""

    def feed(self, delta: Delta) -> list[Event]:
        """Add a delta and return its events."""
        events: list[Event] = []
        if delta.reasoning:
            events += self._add_text("reasoning", delta.reasoning)
        if delta.text:
            events += self._add_text("message", delta.text)
        for call in delta.tool_calls:
            events += self._add_call(call)
        return events

    def close(self) -> list[Event]:
        """End the open item, if there is one, and return its events."""
        item, self._open = self._open, None
        if item is None:
            return []
        text, self._text = self._text, ""
        at = self._at(item)
        if item["type"] == "message":
            part = _text_part(text)
            item |= {"status": "completed", "content": [part]}
            ends: list[Event] = [
                {"type": "response.output_text.done", "content_index": 0, "text": text, "logprobs": [], **at},
                {"type": "response.content_part.done", "content_index": 0, "part": part, **at},
            ]
        elif item["type"] == "reasoning":
            item |= {"status": "completed", "content": [{"type": "reasoning_text", "text": text}]}
            ends = [{"type": "response.reasoning_text.done", "content_index": 0, "text": text, **at}]
        else:
            item |= {"status": "completed", "arguments": text}
            end = {"type": "response.function_call_arguments.done", "arguments": text, "name": item["name"], **at}
            ends = [end]
        self.done.append(item)
        index = at["output_index"]
        return [*ends, {"type": "response.output_item.done", "output_index": index, "item": item}]

    def _add_text(self, kind: str, text: str) -> list[Event]:
        events: list[Event] = []
        if self._open is None or self._open["type"] != kind:
            events = self.close()
            item: dict[str, Any] = {"id": new_id("rs" if kind == "reasoning" else "msg"), "type": kind}
            item |= {"summary": []} if kind == "reasoning" else {"role": "assistant", "content": []}
            events += self._begin(item)
            if kind == "message":
                part = {"type": "response.content_part.added", "content_index": 0, "part": _text_part("")}
                events.append(part | self._at(item))
        assert self._open is not None  # nosec B101 # narrows a type, checks no input
        self._text += text
        delta: Event = {"content_index": 0, "delta": text, **self._at(self._open)}
        if kind == "message":
            return [*events, delta | {"type": "response.output_text.delta", "logprobs": []}]
        return [*events, delta | {"type": "response.reasoning_text.delta"}]

    def _add_call(self, call: dict[str, Any]) -> list[Event]:
        events: list[Event] = []
        function = call["function"]
        if "id" in call:
            item = {"id": new_id("fc"), "type": "function_call", "call_id": call["id"]}
            events = self.close() + self._begin(item | {"name": function["name"], "arguments": ""})
        assert self._open is not None  # nosec B101 # narrows a type, checks no input
        arguments = function.get("arguments", "")
        if arguments:
            self._text += arguments
            delta = {"type": "response.function_call_arguments.delta", "delta": arguments}
            events.append(delta | self._at(self._open))
        return events

    def _begin(self, item: dict[str, Any]) -> list[Event]:
        self._open = item | {"status": "in_progress"}
        index = len(self.done)
        return [{"type": "response.output_item.added", "output_index": index, "item": dict(self._open)}]

    def _at(self, item: dict[str, Any]) -> Event:
        return {"item_id": item["id"], "output_index": len(self.done)}


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    """Return a chat's usage under the names of this endpoint."""
    cached = chat.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    reasoning = chat.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": chat["total_tokens"],
    }
