# SPDX-License-Identifier: Apache-2.0
"""`/v1/responses`: a chat completion, written as response items and their events."""

import time
from collections.abc import Callable
from typing import Any

import orjson
from pydantic import ValidationError

from common.errors import RequestError
from frontend.endpoints.chat import ChatPlan, plan_chat
from frontend.endpoints.own_names import PLACE, OwnNames
from frontend.endpoints.response_items import Event, Items
from frontend.endpoints.responses_input import PREVIOUS, SEALED, chat_body
from frontend.endpoints.stored_responses import Keeping, find_earlier
from frontend.errors import describe, error_json, translated
from frontend.protocol.common import too_deep
from frontend.serving.answer import Plan, new_id
from frontend.serving.response_store import ResponseStore
from frontend.serving.served_model import RequestedModel
from frontend.triton.tensors import Delta

# Texts of a request that a response repeats.
_REPEATED = ("prompt_cache_key", "safety_identifier", "user")
# What the store reads of a response; other texts and objects may be large.
_SHORT = ("id", "object", "model", "previous_response_id")
# What a function has in a response although the request need not give it.
_TOOL = {"description": None, "parameters": None, "strict": False}


async def plan_response(store: ResponseStore | None, model: RequestedModel, raw: dict[str, Any]) -> "ResponsePlan":
    """Validate the body and map it to tensors; errors name the fields of this body. store: None if none is kept."""
    keeping = await find_earlier(store, raw)
    body, names = chat_body(raw, keeping.earlier)
    with translated(lambda error: names().own(error), (RequestError, ValidationError)):
        chat = await plan_chat(model, body)
    return ResponsePlan(chat, raw, names, keeping)


class ResponsePlan(Plan):
    """Writes streamed and whole answers with one state machine: a whole answer is its items without the events."""

    def __init__(self, chat: ChatPlan, raw: dict[str, Any], names: Callable[[], OwnNames], keeping: Keeping) -> None:
        self.id = new_id("resp")
        self.requests = chat.requests
        self.image_urls = chat.image_urls
        self.stream = chat.stream
        # The last events hold the usage, so they are always written.
        self.include_usage = True
        self.usage = chat.usage
        self._chat = chat
        self._names = names
        self._items = Items(sealed=SEALED in (raw.get("include") or ()))
        self._finish: str | None = None
        self._ended_at: int | None = None
        self._raw, self._keeping = raw, keeping
        self._input = b""
        self._places = (len(raw["input"]) if isinstance(raw["input"], list) else 0) + len(keeping.earlier or ())
        self.stores = keeping.store is not None
        self._sequence = 0
        self._about = {
            "id": self.id,
            "object": "response",
            "created_at": int(time.time()),
            "model": chat.model,
            "background": False,
            "instructions": raw.get("instructions"),
            "max_output_tokens": raw.get("max_output_tokens"),
            "max_tool_calls": None,
            "metadata": raw.get("metadata") or {},
            "parallel_tool_calls": raw.get("parallel_tool_calls") is not False,
            "previous_response_id": raw.get(PREVIOUS) if keeping.earlier is not None else None,
            "service_tier": "default",
            "store": self.stores,
            "reasoning": {"effort": (raw.get("reasoning") or {}).get("effort"), "summary": None},
            "temperature": raw.get("temperature"),
            "text": {"format": {"type": "text"}} | _given(raw.get("text")),
            "tool_choice": raw.get("tool_choice") or "auto",
            "tools": [_TOOL | tool for tool in raw.get("tools") or ()],
            "top_logprobs": raw.get("top_logprobs") or 0,
            "top_p": raw.get("top_p"),
            "truncation": "disabled",
            "error": None,
        } | {name: raw[name] for name in _REPEATED if isinstance(raw.get(name), str)}
        try:
            orjson.dumps(self._about)
        except orjson.JSONEncodeError:
            # The answer repeats fields of the request.
            raise RequestError("The request is nested too deeply", param=too_deep(self._about)) from None

    def own_error(self, error: RequestError) -> RequestError:
        return self._names().own(self._chat.own_error(error))

    def forget_prompts(self) -> int:
        kept = super().forget_prompts() + self._chat.forget_prompts() + PLACE * self._places
        # As JSON, what the answer repeats and what is stored have a size that is known.
        self._input = orjson.dumps(self._raw["input"]) if self.stores else b""
        self._raw = {}
        self._keeping = self._keeping.without_contents()
        large = {name: value for name, value in self._about.items() if isinstance(value, str | list | dict)}
        repeated = {name: orjson.dumps(value) for name, value in large.items() if name not in _SHORT}
        self._about |= {name: orjson.Fragment(value) for name, value in repeated.items()}
        return kept + len(self._input) + sum(map(len, repeated.values()))

    def adapt(self, delta: Delta) -> Delta:
        return self._chat.adapt(delta)

    def first_chunks(self) -> bytes:
        begun = self._body("in_progress")
        kinds = ("response.created", "response.in_progress")
        return self._frames([{"type": kind, "response": begun} for kind in kinds])

    def chunks(self, choice: int, delta: Delta) -> bytes:
        return self._frames(self._feed(delta))

    async def keep(self, patience: float) -> dict[str, Any]:
        given = orjson.loads(self._input)
        self._about["store"] = await self._keeping.keep(self._body(self._status()), given, patience)
        return {"store": self._about["store"]}

    def usage_chunk(self) -> bytes:
        status = self._status()
        return self._frames([{"type": f"response.{status}", "response": self._body(status) | self.metrics()}])

    def failure(self, error: BaseException) -> bytes:
        """End the open item and the response; the last event has the error object, on which clients raise."""
        events = self._items.close(cut=True)
        about = orjson.loads(error_json(error))["error"]
        code = "server_error" if describe(error)[0].status >= 500 else "invalid_prompt"
        body = self._body("failed") | {"error": {"code": code, "message": about["message"]}}
        events.append({"type": "response.failed", "response": body})
        named = {name: about[name] for name in ("code", "message", "param")}
        return self._frames([*events, {"type": "error", **named, "error": about}])

    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        self._feed(answers[0])
        return self._body(self._status()) | self.metrics()

    def _feed(self, delta: Delta) -> list[Event]:
        events = self._items.feed(delta)
        if delta.finish_reason is not None:
            self._finish = delta.finish_reason
            self._ended_at = int(time.time())
            events += self._items.close(cut=self._status() == "incomplete")
        return events

    def _status(self) -> str:
        return "incomplete" if self._finish == "length" else "completed"

    def _body(self, status: str) -> dict[str, Any]:
        incomplete = {"reason": "max_output_tokens"} if status == "incomplete" else None
        usage = None if status in ("in_progress", "failed") else _usage(self.usage.body())
        output = self._items.done
        return self._about | {
            "status": status,
            "completed_at": self._ended_at if status == "completed" else None,
            "incomplete_details": incomplete,
            "output": output,
            "usage": usage,
        }

    def _frames(self, events: list[Event]) -> bytes:
        frames = []
        for event in events:
            numbered = event | {"sequence_number": self._sequence}
            self._sequence += 1
            frames.append(b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps(numbered) + b"\n\n")
        return b"".join(frames)


def _given(fields: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fields that are not null."""
    return {name: value for name, value in (fields or {}).items() if value is not None}


def _usage(chat: dict[str, Any]) -> dict[str, Any]:
    """Return a chat's usage under the names of this endpoint."""
    cached = chat.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    reasoning = chat.get("completion_tokens_details", {}).get("reasoning_tokens", 0)
    return {
        "input_tokens": chat["prompt_tokens"],
        # Required by clients; the cache is written without a charge or a count.
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": chat["total_tokens"],
    }
