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
from families.parsers.formats import GENERIC, REASONING_FORMATS, TOOL_FORMATS

__all__ = [
    "GENERIC",
    "REASONING_FORMATS",
    "TOOL_FORMATS",
    "AnswerFormat",
    "ChatParser",
    "ContentDelta",
    "Event",
    "Parser",
    "ReasoningDelta",
    "ToolArgumentsDelta",
    "ToolCallStart",
    "starts_in_reasoning",
]
