# SPDX-License-Identifier: Apache-2.0
"""Render a conversation as the messages of gradio's Chatbot."""

import html
import json
from typing import Any

from chat_page.conversation import Conversation
from chat_page.turns import Turn

ChatbotMessage = dict[str, Any]


def render(conversation: Conversation) -> list[ChatbotMessage]:
    """List the messages to show. Pictures, videos, reasoning and tool calls are separate messages."""
    messages = [message for turn in conversation.turns for message in _render_turn(turn, conversation)]
    if conversation.error:
        messages.append(_assistant(f"⚠️ {html.escape(conversation.error, quote=False)}"))
    return messages


def _render_turn(turn: Turn, conversation: Conversation) -> list[ChatbotMessage]:
    if turn.role == "user":
        files = [{"role": "user", "content": {"path": str(path)}} for path in turn.files]
        return [*files, {"role": "user", "content": turn.text}] if turn.text else files
    if turn.call is not None:
        return [_foldable_block(f"Result of {turn.call.name}", _code_block(turn.text))]
    under_way = conversation.busy and turn is conversation.turns[-1]
    messages = []
    if turn.reasoning:
        thinking = under_way and not turn.text and not turn.calls
        messages.append(_foldable_block("Reasoning", turn.reasoning, status="pending" if thinking else "done"))
    if turn.text:
        messages.append(_assistant(turn.text))
    messages += [
        _foldable_block(f"Tool call: {call.name}", _code_block(_indented(call.arguments))) for call in turn.calls
    ]
    if turn.note:
        messages.append(_assistant(f"*{turn.note}*"))
    return messages


def _assistant(text: str) -> ChatbotMessage:
    return {"role": "assistant", "content": text}


def _foldable_block(title: str, text: str, **metadata: str) -> ChatbotMessage:
    """A collapsible block: closed if its status is "done", open if "pending" or without a status."""
    return {"role": "assistant", "content": text, "metadata": {"title": title, **metadata}}


def _indented(arguments: str) -> str:
    """The JSON text indented, or unchanged while it is incomplete."""
    try:
        return json.dumps(json.loads(arguments), indent=2, ensure_ascii=False)
    except ValueError:
        return arguments


def _code_block(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}json\n{text}\n{fence}"
