# SPDX-License-Identifier: Apache-2.0
"""Gemma 3. Its template has two roles, user and model, in strict alternation; system text opens the first user turn.

Gemma 3 has no tokens for tools. As in Google's guide to function calling with it, the prompt describes the functions
and asks for JSON; calls and results of earlier rounds are turns of plain text.
"""

import json
from typing import Any

from common.chat.messages import Message
from common.chat.request import ChatRequest
from common.checks import PositionError
from common.tokenizer import ChatTokenizer
from families.stylers.base import Styler

_TOOLS_INTRO = (
    "You have access to the functions below. When a function is needed, answer with nothing but the call, "
    'as JSON of this form: {"name": function name, "parameters": {argument name: value}}.'
)
_SEVERAL_CALLS = " To call several functions at once, answer with a JSON array of such objects."
_TOOLS_END = " When no function is needed, answer in plain text."


class Gemma3Styler(Styler):
    """Gemma 3, with tools described in the system text."""

    name = "gemma3"
    turn_ends = ("<end_of_turn>",)

    def arrange(self, chat: ChatRequest) -> list[Message]:
        leading = 0
        while leading < len(chat.messages) and chat.messages[leading]["role"] == "system":
            leading += 1
        if leading == len(chat.messages):
            raise PositionError("messages", "must have a user message after the system message")
        system = [message["content"] for message in chat.messages[:leading]]
        if chat.tools:
            system.append(_describe_tools(chat))
        turns = _turns(chat.messages, leading)
        return [{"role": "system", "content": "\n\n".join(system)}, *turns] if system else turns

    def rendered_tools(self, chat: ChatRequest) -> list[dict[str, Any]]:
        return []  # `arrange` describes them in the system text.

    def renders_tools(self, tokenizer: ChatTokenizer) -> bool:
        return True  # `arrange` does.

    def tool_parser(self, tokenizer: ChatTokenizer) -> str | None:
        return "gemma"


def _describe_tools(chat: ChatRequest) -> str:
    several = _SEVERAL_CALLS if chat.parallel_tool_calls else ""
    functions = [tool.definition["function"] for tool in chat.tools]
    return f"{_TOOLS_INTRO}{several}{_TOOLS_END}\n\n{json.dumps(functions, ensure_ascii=False)}"


def _turns(messages: list[Message], start: int) -> list[Message]:
    """The messages from index `start` as user and assistant turns; raises RequestError for a system message."""
    turns: list[Message] = []
    called: dict[str, str] = {}  # tool call id -> function name
    after_result = False
    for index, message in enumerate(messages[start:], start):
        role, content = message["role"], message["content"]
        if role == "system":
            raise PositionError(
                f"messages[{index}].role", "may be system only at the start: the served model has no such turn"
            )
        if role == "assistant" and "tool_calls" in message:
            called.update((call.get("id", ""), call["function"]["name"]) for call in message["tool_calls"])
            content = _join(content, _call_text(message["tool_calls"]))
        elif role == "tool":
            content = _result_text(message, called)
        if role != "assistant" and after_result:  # Tool results and the user's text after them share a turn.
            turns[-1] = {"role": "user", "content": _join(turns[-1]["content"], content)}
        else:
            turns.append({"role": "user" if role == "tool" else role, "content": content})
        after_result = role == "tool"
    return turns


def _call_text(calls: list[dict[str, Any]]) -> str:
    """Calls in the form that the prompt requests: one object, or an array of several."""
    written = [{"name": call["function"]["name"], "parameters": call["function"]["arguments"]} for call in calls]
    return json.dumps(written if len(written) > 1 else written[0], ensure_ascii=False)


def _result_text(message: Message, called: dict[str, str]) -> str:
    name = called.get(message.get("tool_call_id", "")) or message.get("name") or "the function"
    return f"Result of {name}:\n{message['content']}"


def _join(before: str, text: str) -> str:
    return f"{before}\n\n{text}" if before else text
