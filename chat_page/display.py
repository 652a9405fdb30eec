# SPDX-License-Identifier: Apache-2.0
"""Conversations as the messages of gradio's Chatbot."""

import html
import json
from typing import Any

from chat_page.conversation import Conversation
from chat_page.turns import Call, Turn

ChatbotMessage = dict[str, Any]


def render(conversation: Conversation) -> list[ChatbotMessage]:
    """All messages to show: pictures, reasoning and tool calls are messages of their own."""
    messages = [message for turn in conversation.turns for message in _render_turn(turn, conversation)]
    if conversation.error:
        messages.append(_assistant(f"⚠️ {html.escape(conversation.error, quote=False)}"))
    return messages


def _render_turn(turn: Turn, conversation: Conversation) -> list[ChatbotMessage]:
    if turn.role == "user":
        pictures = [{"role": "user", "content": {"path": str(path)}} for path in turn.pictures]
        return [*pictures, {"role": "user", "content": turn.text}] if turn.text else pictures
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
        _foldable_block(f"Tool call: {call.name}", _code_block(_format_arguments(call))) for call in turn.calls
    ]
    if turn.note:
        messages.append(_assistant(f"*{turn.note}*"))
    return messages


def _assistant(text: str) -> ChatbotMessage:
    return {"role": "assistant", "content": text}


def _foldable_block(title: str, text: str, **metadata: str) -> ChatbotMessage:
    """A block that folds: closed with the status "done", open while "pending" and without a status."""
    return {"role": "assistant", "content": text, "metadata": {"title": title, **metadata}}


def _format_arguments(call: Call) -> str:
    """Indented where they are whole."""
    try:
        return json.dumps(json.loads(call.arguments), indent=2, ensure_ascii=False)
    except ValueError:
        return call.arguments


def _code_block(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}json\n{text}\n{fence}"
