# SPDX-License-Identifier: Apache-2.0
"""`/v1/messages`, Anthropic's Messages API: a chat completion, written as content blocks and their events."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from common.errors import RequestError
from frontend.endpoints.chat import ChatPlan, plan_chat
from frontend.endpoints.message_blocks import BlockEvents, event, whole_content
from frontend.endpoints.messages_input import chat_body, thinking_is_shown
from frontend.endpoints.own_names import PLACE, OwnNames
from frontend.endpoints.tokenization import tokenize_chat
from frontend.errors import REQUEST_ID, message_error, translated
from frontend.serving.answer import Plan, answer, new_id
from frontend.serving.served_model import RequestedModel
from frontend.serving.service import Service
from frontend.telemetry.request_record import current
from frontend.triton.tensors import Delta

router = APIRouter(prefix="/v1/messages")


@router.post("")
async def messages(request: Request) -> Response:
    return _named(await answer(request, "messages", plan_message))


@router.post("/count_tokens")
async def count_tokens(request: Request) -> Response:
    service: Service = request.app.state.service
    async with service.admission.admit(request, "tokenize") as admitted, admitted.cancel_scope.cancellable():
        body, names = chat_body(admitted.body)
        with translated(lambda error: names().own(error), (RequestError, ValidationError)):
            ids, _ = await tokenize_chat(admitted.model.served, body, admitted.memory)
        return _named(Response(orjson.dumps({"input_tokens": len(ids)}), media_type="application/json"))


def _named(response: Response) -> Response:
    """Give the response the header under which this API's clients look for the request's id."""
    response.headers[REQUEST_ID] = current().request_id
    return response


async def plan_message(model: RequestedModel, raw: dict[str, Any]) -> "MessagePlan":
    """Validate the body and map it to tensors; errors name the fields of this body."""
    if raw.get("max_tokens") is None:
        raise RequestError("max_tokens is missing", param="max_tokens")
    body, names = chat_body(raw)
    with translated(lambda error: names().own(error), (RequestError, ValidationError)):
        chat = await plan_chat(model, body)
    return MessagePlan(chat, raw, names)


class MessagePlan(Plan):
    """The request of a message and how its deltas are written."""

    # Streams of this API have no [DONE].
    end = b""

    def __init__(self, chat: ChatPlan, raw: dict[str, Any], names: Callable[[], OwnNames]) -> None:
        self.id = new_id("msg")
        # Clients ask for their own model's maximum, whatever the context of the served one.
        self.requests = [replace(one, parameters={**one.parameters, "cap_max_tokens": True}) for one in chat.requests]
        self.image_urls = chat.image_urls
        self.stream = chat.stream
        # The last events hold the usage, so they are always written.
        self.include_usage = True
        self.usage = chat.usage
        self._chat = chat
        self._names = names
        # A system message may have none.
        contents = [message.get("content") for message in raw["messages"]]
        self._places = len(contents) + sum(len(one) for one in contents if isinstance(one, list))
        self._max_tokens: int = raw["max_tokens"]
        self._show_thinking = thinking_is_shown(raw)
        self._events = BlockEvents(show_thinking=self._show_thinking)
        self._called = False
        self._finish = ""
        self._stop_sequence: str | None = None

    def own_error(self, error: RequestError) -> RequestError:
        return self._names().own(self._chat.own_error(error))

    def forget_prompts(self) -> int:
        return super().forget_prompts() + self._chat.forget_prompts() + PLACE * self._places

    def adapt(self, delta: Delta) -> Delta:
        return self._chat.adapt(delta)

    def first_chunks(self) -> bytes:
        begun = self._head() | {"content": [], "stop_reason": None, "stop_sequence": None, "usage": self._usage()}
        return event("message_start", {"message": begun}) + event("ping", {})

    def chunks(self, choice: int, delta: Delta) -> bytes:
        frames = self._events.feed(delta)
        if delta.tool_calls:
            self._called = True
        if delta.finish_reason is None:
            return frames
        self._note_end(delta)
        return frames + self._events.close()

    def usage_chunk(self) -> bytes:
        ended = {"delta": self._end(), "usage": self._usage()}
        return event("message_delta", ended) + event("message_stop", {})

    def failure(self, error: BaseException) -> bytes:
        return b"event: error\ndata: " + message_error(error, current().request_id) + b"\n\n"

    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        whole = answers[0]
        self._called = bool(whole.tool_calls)
        self._note_end(whole)
        content = whole_content(whole, show_thinking=self._show_thinking)
        return self._head() | {"content": content, **self._end(), "usage": self._usage()}

    def _head(self) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "model": self._chat.model}

    def _note_end(self, delta: Delta) -> None:
        self._finish, self._stop_sequence = delta.finish_reason or "", delta.stop_string

    def _end(self) -> dict[str, Any]:
        return {"stop_reason": self._stop_reason(), "stop_sequence": self._stop_sequence}

    def _stop_reason(self) -> str:
        if self._stop_sequence is not None:
            return "stop_sequence"
        if self._finish == "length":
            context_ended = self.usage.completion_tokens < self._max_tokens
            return "model_context_window_exceeded" if context_ended else "max_tokens"
        return "tool_use" if self._called else "end_turn"

    def _usage(self) -> dict[str, Any]:
        """Return the counts so far. Here the tokens of the prompt are those that the cache did not have."""
        chat = self.usage.body()
        cached = self.usage.cached_tokens or 0
        usage: dict[str, Any] = {
            "input_tokens": self.usage.prompt_tokens - cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "output_tokens": self.usage.completion_tokens,
        }
        if details := chat.get("completion_tokens_details"):
            usage["output_tokens_details"] = {"thinking_tokens": details["reasoning_tokens"]}
        return usage
