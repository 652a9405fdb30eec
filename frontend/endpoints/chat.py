# SPDX-License-Identifier: Apache-2.0
"""Chat completions: a body becomes ensemble requests, their deltas become chunks or one message."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from sys import getsizeof
from typing import Any

import orjson

from common.answer_options import AnswerOptions
from common.chat.text_arguments import text_arguments
from common.errors import RequestError
from frontend.endpoints.own_names import OwnNames, generation_names
from frontend.endpoints.prompt_logprobs import of_prompt, token_ids_json, with_first_parameters
from frontend.endpoints.sampling import engine_parameters, sampling_inputs, seeded
from frontend.protocol.chat import AllowedToolsChoice, ChatBody, ChatPrompt
from frontend.protocol.common import too_deep
from frontend.protocol.messages import clean_messages
from frontend.protocol.refused import REFUSED_IN_CHAT, refuse
from frontend.serving.answer import Plan, head, new_id
from frontend.serving.served_model import RequestedModel
from frontend.serving.sse import ChunkFrames
from frontend.triton.deltas import complete_tool_calls
from frontend.triton.tensors import Delta, EnsembleRequest
from frontend.triton.usage import Usage

# The fields that the `messages` tensor takes as they are.
_SAME_IN_PROMPT = (
    *("chat_template", "add_generation_prompt", "continue_final_message"),
    *("mm_processor_kwargs", "media_io_kwargs", "documents", "verbosity"),
)


async def plan_chat(model: RequestedModel, raw: dict[str, Any]) -> "ChatPlan":
    """Validate the body and map it to tensors, without the images."""
    settings = model.served.settings
    refuse(raw, REFUSED_IN_CHAT, trust_chat_template=settings.trust_request_chat_template)
    body = ChatBody.model_validate(raw)
    thinking = body.thinks(settings.enable_thinking)
    messages, urls = clean_messages(body.messages)
    if urls:
        _without_pictures(body)
    request = EnsembleRequest(
        messages=prompt_json(body, messages, thinking, raw),
        max_tokens=body.length,
        lora_task_id=model.lora_task_id,
        return_log_probs=True if body.logprobs else None,
        parameters=engine_parameters(body, salt_by_key=settings.cache_salt_by_key)
        | _options(body, thinking, raw, settings.inline_reasoning).to_parameters(),
        # Where there is no reasoning, engines would look for its beginning in vain.
        **sampling_inputs(body) | {"thinking_token_budget": None if thinking is False else body.reasoning_budget},
    )
    if body.constraints():
        await model.served.require_input("guided_decoding_guide", body.constraint_field)
    return ChatPlan(body, model.name, request, urls)


def _without_pictures(body: ChatBody) -> None:
    """Refuse what a prompt with pictures does not have: what stands for one is no token of the vocabulary."""
    asked = {"return_token_ids": body.return_token_ids is True, "prompt_logprobs": body.prompt_logprobs is not None}
    for name, wanted in asked.items():
        if wanted:
            raise RequestError(f"{name} is not supported for chats with pictures", param=name)


def prompt_json(
    body: ChatPrompt, messages: list[dict[str, Any]], thinking: bool | None, raw: Mapping[str, Any]
) -> bytes:
    """Return the `messages` tensor: a JSON object with the fields of the request that determine the prompt."""
    prompt: dict[str, Any] = {"messages": messages}
    for name in ("tools", "tool_choice", "parallel_tool_calls") if body.tools else ():
        if raw.get(name) is not None:
            prompt[name] = raw[name]
    if isinstance(body.tool_choice, AllowedToolsChoice):
        prompt |= body.tool_choice.narrow(raw["tools"])
    if raw.get("response_format"):
        prompt["response_format"] = raw["response_format"]
    if body.chat_template_kwargs:
        prompt["chat_template_kwargs"] = body.chat_template_kwargs
    if thinking is not None:
        prompt["enable_thinking"] = thinking
    if body.reasoning_effort is not None:
        prompt["reasoning_effort"] = body.reasoning_effort
    if isinstance(body, ChatBody) and (structured := _structured_outputs(body)):
        prompt["structured_outputs"] = structured
    for name in _SAME_IN_PROMPT:
        if getattr(body, name) is not None:
            prompt[name] = getattr(body, name)
    try:
        return orjson.dumps(prompt)
    except orjson.JSONEncodeError:
        param = too_deep(prompt)
        if param == "structured_outputs" and isinstance(body, ChatBody):
            param = body.constraint_field
        raise RequestError("The request is nested too deeply", param=param) from None


def _structured_outputs(body: ChatBody) -> dict[str, Any] | None:
    """Return the constraint as `structured_outputs`, unless it is in response_format, which is sent unchanged."""
    constraints = body.constraints()
    if not constraints or (body.response_format is not None and body.response_format.type != "text"):
        return None
    return constraints[0]


def _options(body: ChatBody, thinking: bool | None, raw: Mapping[str, Any], inline_reasoning: bool) -> AnswerOptions:
    return AnswerOptions(
        chat=True,
        stop=tuple(body.stop or ()),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=bool(body.include_stop_str_in_output),
        # Only stop strings need it here; stop tokens wait for it in the engine.
        min_tokens=(body.min_tokens or 0) if body.stop else 0,
        skip_special_tokens=body.skip_special_tokens is not False,
        inline_reasoning=inline_reasoning if body.separate_reasoning is None else not body.separate_reasoning,
        enable_thinking=thinking,
        tools=bool(body.tools),
        tool_choice=body.tool_choice_name() if body.tools else "auto",
        text_arguments=text_arguments(raw["tools"]) if body.tools else "",
        logprobs=bool(body.logprobs),
        top_logprobs=body.top_logprobs or 0,
        continuous_usage=body.continuous_usage,
        token_ids=bool(body.return_token_ids),
    )


class ChatPlan(Plan):
    """The requests of a chat completion and how their deltas are written."""

    def __init__(self, body: ChatBody, model: str, request: EnsembleRequest, image_urls: Sequence[str]) -> None:
        self.id = new_id("chatcmpl")
        self.requests = seeded(request, body.choices)
        self.requests[0] = with_first_parameters(self.requests[0], body)
        self.image_urls = image_urls
        self.stream = bool(body.stream)
        self.include_usage = body.include_usage
        self.usage = Usage(per_prompt=body.choices)
        self._body = body
        self._names: Callable[[], dict[str, str]] = partial(_names, body)
        self.model, self._created = model, int(time.time())
        self._echo = _echo(body)
        chunk_head = head(self.id, "chat.completion.chunk", self._created, model)
        text = b'"delta"', b'{"content":', b"}"
        self._frames = ChunkFrames(chunk_head, body.choices, with_usage=body.include_usage, text=text)

    def adapt(self, delta: Delta) -> Delta:
        if self._body.parallel_tool_calls is False and delta.tool_calls:
            delta = replace(delta, tool_calls=tuple(call for call in delta.tool_calls if call["index"] == 0))
        if self._body.include_reasoning is False and delta.reasoning:
            delta = replace(delta, reasoning="")
        return delta

    def forget_prompts(self) -> int:
        names = self._names()
        self._body, self._names = self._body.without_prompt(), partial(dict, names)
        return super().forget_prompts() + (getsizeof(self._echo) if self._echo else 0)

    def own_error(self, error: RequestError) -> RequestError:
        return OwnNames(self._names()).own(error)

    def first_chunks(self) -> bytes:
        role = orjson.dumps({"role": "assistant", "content": ""})
        if self._body.continuous_usage:
            self._frames.set_usage(self.usage.so_far(0, begun=False))
        frames = [self._frames.chunk(choice, b'"delta"', role) for choice in range(len(self.requests))]
        if self._echo:
            echo = b'{"content":' + orjson.dumps(self._echo) + b"}"
            frames += [self._frames.chunk(choice, b'"delta"', echo) for choice in range(len(self.requests))]
        return b"".join(frames)

    def chunks(self, choice: int, delta: Delta) -> bytes:
        """Write reasoning, content and each tool call as separate chunks, because clients read one kind per chunk."""
        if self._body.continuous_usage:
            self._frames.set_usage(self.usage.so_far(choice))
        logprobs = _logprobs_json(delta)
        values: list[bytes] = []
        if delta.reasoning:
            text = orjson.dumps(delta.reasoning)
            values.append(b'{"reasoning_content":' + text + b',"reasoning":' + text + b"}")
        bare = bool(delta.logprobs or delta.token_ids or delta.prompt_token_ids)
        if delta.text or (bare and not values and not delta.tool_calls):
            values.append(b'{"content":' + orjson.dumps(delta.text) + b"}")
        values += [b'{"tool_calls":[' + orjson.dumps(call) + b"]}" for call in delta.tool_calls]
        frames: list[bytes] = []
        ids, prompt_ids = token_ids_json(self._body, delta)
        for value in values:
            frames.append(self._frames.chunk(choice, b'"delta"', value, logprobs, more=ids, beside=prompt_ids))
            logprobs, ids, prompt_ids = b"null", b"", b""
        if delta.finish_reason is not None:
            frames.append(self._frames.chunk(choice, b'"delta"', b"{}", finish=orjson.dumps(delta.finish_reason)))
        return b"".join(frames)

    def text_chunk(self, choice: int, text: str) -> bytes:
        if not text or self._body.continuous_usage:
            return super().text_chunk(choice, text)
        return self._frames.text(choice, text)

    def usage_chunk(self) -> bytes:
        return self._frames.usage(self.usage.body(), self.metrics())

    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        choices = [self._choice(index, delta) for index, delta in enumerate(answers)]
        about = head(self.id, "chat.completion", self._created, self.model)
        counted = {"choices": choices, "usage": self.usage.body()}
        return about | counted | of_prompt(self._body, answers[0]) | self.metrics()

    def _choice(self, index: int, delta: Delta) -> dict[str, Any]:
        text = self._echo + delta.text
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if delta.tool_calls and not text else text,
            "refusal": None,
        }
        if delta.reasoning:
            message |= {"reasoning_content": delta.reasoning, "reasoning": delta.reasoning}
        if delta.tool_calls:
            message["tool_calls"] = complete_tool_calls(delta.tool_calls)
        return {
            "index": index,
            "message": message,
            "logprobs": {"content": list(delta.logprobs), "refusal": None} if self._body.logprobs else None,
            "finish_reason": delta.finish_reason,
            **({"token_ids": list(delta.token_ids)} if self._body.return_token_ids else {}),
        }


def _names(body: ChatBody) -> dict[str, str]:
    names = generation_names(body, "messages")
    return names if body.max_completion_tokens is None else names | {"max_tokens": "max_completion_tokens"}


def _echo(body: ChatBody) -> str:
    """Return the text of a last assistant message, which the answer continues, if `echo` requests it."""
    last = body.messages[-1]
    content = last.get("content")
    return content if body.echo and last.get("role") == "assistant" and isinstance(content, str) else ""


def _logprobs_json(delta: Delta) -> bytes:
    return b'{"content":' + orjson.dumps(delta.logprobs) + b',"refusal":null}' if delta.logprobs else b"null"
