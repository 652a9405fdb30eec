# SPDX-License-Identifier: Apache-2.0
"""Tools for chat templates that know none: described in the prompt, with calls and results as text of ordinary turns.

The form and its description are those of Qwen2.5's template, which many models have seen. Results are in user turns,
since such templates have no role for them.

Its tags are ordinary text for most tokenizers, unlike the tokens around turns, so the model could not tell a client's
`<tool_response>` from a real one. In everything but the model's earlier answers the `<` of a tag that the client spells
is therefore written as `\\u003c`, which means the same in JSON.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from common.chat.messages import Message
from common.chat.request import ChatRequest

_DESCRIPTION = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""
_ONE_CALL = "\n\nCall at most one function in an answer."
_TAG = re.compile(r"<(?=/?tool(?:s|_call|_response)>)")


def describe(chat: ChatRequest) -> str:
    """The text that tells the model the chat's tools and how to call them."""
    tools = "\n".join(_json(tool.definition) for tool in chat.tools)
    return _DESCRIPTION.format(tools=tools) + ("" if chat.parallel_tool_calls else _ONE_CALL)


def write_as_text(chat: ChatRequest) -> ChatRequest:
    """The chat without tools, whose earlier calls are text of the assistant's turns and results are user turns."""
    turns: list[Message] = []
    after_result = False
    for message in chat.messages:
        role, content = message["role"], message["content"]
        if role == "assistant":
            calls = [_call(call["function"]) for call in message.get("tool_calls", ())]
            content = "\n".join([*([content] if content or not calls else []), *calls])
            fields = {name: value for name, value in message.items() if name != "tool_calls"}
            turns.append({**fields, "content": content})
        else:
            content = _without_tags(content)
            if role == "tool":
                content = f"<tool_response>\n{content}\n</tool_response>"
            # Results, and the user's text after them, share a turn: many templates demand that turns alternate.
            if turns and turns[-1]["role"] == "user" and (role == "tool" or (role == "user" and after_result)):
                turns[-1] = {**turns[-1], "content": f"{turns[-1]['content']}\n{content}"}
            elif role == "tool":
                turns.append({"role": "user", "content": content})
            else:
                turns.append({**message, "content": content})
        after_result = role == "tool"
    return replace(chat, messages=turns, tools=())


def in_system_turn(chat: ChatRequest, description: str, template_kwargs: Mapping[str, Any]) -> ChatRequest:
    """The chat with a description at the end of its system message, which is created if there is none."""
    first, *rest = chat.messages
    if first["role"] == "system":
        return replace(chat, messages=[{**first, "content": _join(first["content"], description)}, *rest])
    # A template with this variable writes it only if there is no system message.
    content = _join(template_kwargs.get("default_system") or "", description)
    return replace(chat, messages=[{"role": "system", "content": content}, *chat.messages])


def in_first_turn(chat: ChatRequest, description: str) -> ChatRequest:
    """The chat with a description at the beginning of its first user turn, for templates without system turns."""
    leading = next((at for at, message in enumerate(chat.messages) if message["role"] != "system"), 0)
    system, turns = chat.messages[:leading], chat.messages[leading:]
    if turns[0]["role"] == "user":
        turns[0] = {**turns[0], "content": _join(description, turns[0]["content"])}
    else:
        turns.insert(0, {"role": "user", "content": description})
    return replace(chat, messages=[*system, *turns])


def in_use(chat: ChatRequest) -> bool:
    """Whether a chat offers tools, or has calls or results of earlier turns."""
    return bool(chat.tools) or any(message["role"] == "tool" or "tool_calls" in message for message in chat.messages)


def _call(function: Mapping[str, Any]) -> str:
    call = _json({"name": function["name"], "arguments": function["arguments"]})
    return f"<tool_call>\n{call}\n</tool_call>"


def _json(value: Any) -> str:
    return _without_tags(json.dumps(value, ensure_ascii=False))


def _without_tags(text: str) -> str:
    return _TAG.sub(r"\\u003c", text)


def _join(before: str, text: str) -> str:
    return f"{before}\n\n{text}" if before else text
