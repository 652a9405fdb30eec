# SPDX-License-Identifier: Apache-2.0
"""A chat request in the input `messages`: a JSON object with the OpenAI request's own fields."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from common.chat.media import read_media_request
from common.chat.messages import Escape, Message, Place, escape_nothing, normalize_messages, place_nothing
from common.chat.parts import MediaPart, MediaRequest
from common.chat.reasoning import EFFORTS, effort_asked, thinking_asked
from common.chat.tools import Tool, read_tool_choice, read_tools
from common.checks import PositionError, check_tree, expect, expect_one_of, shorten
from common.errors import RequestError

FIELDS = frozenset(
    {
        "messages",
        "chat_template",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "chat_template_kwargs",
        "enable_thinking",
        "reasoning_effort",
        "response_format",
        "structured_outputs",
        "mm_processor_kwargs",
        "media_io_kwargs",
        "documents",
        "verbosity",
        "add_generation_prompt",
        "continue_final_message",
    }
)
VERBOSITIES = ("low", "medium", "high")
# Published templates have up to 17,000.
MAX_TEMPLATE_CHARS = 65_536


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One validated chat request.

    messages: normalised (common.chat.messages); not to be changed in place.
    media: the images and videos in the messages, in their order in the prompt. media_request: options for all of them.
    tools: the tools described to the model; empty if `tool_choice` is "none".
    tool_choice: "auto", "none", "required" or "function:<name>".
    parallel_tool_calls: False allows at most one call per answer.
    template_kwargs: the client's own variables for the chat template.
    thinking: whether the model shall reason; None leaves it to the model. effort: one of common.chat.reasoning.EFFORTS.
    documents: for templates of retrieval. verbosity: one of VERBOSITIES, for templates that know it.
    chat_template: Jinja source instead of the served model's template; only of clients that the operator trusts.
    response_format, structured_outputs: not yet validated; preprocessing.guides.build reads them.
    continue_final_message: the prompt ends inside the last message, which the model continues.
    """

    messages: list[Message]
    media: tuple[MediaPart, ...] = ()
    media_request: MediaRequest = field(default_factory=MediaRequest)
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    parallel_tool_calls: bool = True
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    thinking: bool | None = None
    effort: str | None = None
    documents: tuple[Mapping[str, Any], ...] = ()
    verbosity: str | None = None
    chat_template: str | None = None
    response_format: Mapping[str, Any] | None = None
    structured_outputs: Mapping[str, Any] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @classmethod
    def parse(cls, text: str, place: Place = place_nothing, escape: Escape = escape_nothing) -> "ChatRequest":
        """Read the JSON text.

        place: the model family's way to write images into a message's text.
        escape: applied to all that a template renders, so that special tokens in it stay text.
        Raises RequestError with the invalid OpenAI field as its param.
        """
        body = _load(text)
        tools = read_tools(body.get("tools"))
        tool_choice = read_tool_choice(body.get("tool_choice"), tools)
        kwargs = _object(body, "chat_template_kwargs") or {}
        effort = _effort(body)
        continued = _flag(body, "continue_final_message", False)
        messages, media = normalize_messages(body.get("messages"), place, escape)
        # The definitions are for the template; guides read the schemas.
        tools = tuple(replace(tool, definition=escape(tool.definition, "system")) for tool in tools)
        chat = cls(
            messages=messages,
            media=media,
            media_request=read_media_request(body),
            tools=() if tool_choice == "none" else tools,
            tool_choice=tool_choice,
            parallel_tool_calls=_flag(body, "parallel_tool_calls", True),
            template_kwargs=escape(kwargs, "system"),
            thinking=thinking_asked(kwargs, _optional_flag(body, "enable_thinking"), effort),
            effort=effort_asked(kwargs, effort),
            documents=tuple(escape(_documents(body), "system")),
            verbosity=_verbosity(body),
            chat_template=_template(body),
            response_format=_object(body, "response_format"),
            structured_outputs=_object(body, "structured_outputs"),
            add_generation_prompt=_flag(body, "add_generation_prompt", not continued),
            continue_final_message=continued,
        )
        _check_continuation(chat)
        return chat


def _load(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise RequestError("the chat request is not valid JSON", param="messages") from None
    if not isinstance(body, dict):
        raise RequestError('the chat request must be a JSON object with "messages"', param="messages")
    for name, value in body.items():
        if name not in FIELDS:
            raise RequestError(f"unknown field '{shorten(name)}' in the chat request", param=shorten(name))
        check_tree(value, name)
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _flag(body: dict[str, Any], name: str, default: bool) -> bool:
    value = _optional_flag(body, name)
    return default if value is None else value


def _optional_flag(body: dict[str, Any], name: str) -> bool | None:
    value = body.get(name)
    return None if value is None else expect(value, bool, name)


def _object(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = body.get(name)
    return None if value is None else expect(value, dict, name)


def _effort(body: dict[str, Any]) -> str | None:
    value = body.get("reasoning_effort")
    return None if value is None else expect_one_of(value, EFFORTS, "reasoning_effort")


def _documents(body: dict[str, Any]) -> list[Any]:
    documents: list[Any] = expect(body.get("documents") or [], list, "documents")
    return [expect(one, dict, f"documents[{at}]") for at, one in enumerate(documents)]


def _verbosity(body: dict[str, Any]) -> str | None:
    value = body.get("verbosity")
    return None if value is None else expect_one_of(value, VERBOSITIES, "verbosity")


def _template(body: dict[str, Any]) -> str | None:
    template = body.get("chat_template")
    if template is None:
        return None
    if not expect(template, str, "chat_template") or len(template) > MAX_TEMPLATE_CHARS:
        raise PositionError("chat_template", f"must have 1 to {MAX_TEMPLATE_CHARS} characters")
    return str(template)


def _check_continuation(chat: ChatRequest) -> None:
    if not chat.continue_final_message:
        return
    if chat.add_generation_prompt:
        raise PositionError("continue_final_message", "cannot be set together with add_generation_prompt")
    if chat.messages[-1]["role"] != "assistant":
        raise PositionError("continue_final_message", "needs a last message of role assistant")
