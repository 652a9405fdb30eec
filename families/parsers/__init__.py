# SPDX-License-Identifier: Apache-2.0
"""Incremental parsers of model answers: text in, content, reasoning and tool calls out."""

from families.parsers.chat_parser import AnswerFormat, ChatParser, starts_in_reasoning
from families.parsers.events import (
    ContentDelta,
    Event,
    Parser,
    ReasoningDelta,
    ToolArgumentsDelta,
    ToolCallStart,
)
from families.parsers.registry import GENERIC, TOOL_PARSERS, find_tool_parser

__all__ = [
    "GENERIC",
    "TOOL_PARSERS",
    "AnswerFormat",
    "ChatParser",
    "ContentDelta",
    "Event",
    "Parser",
    "ReasoningDelta",
    "ToolArgumentsDelta",
    "ToolCallStart",
    "find_tool_parser",
    "starts_in_reasoning",
]
