# SPDX-License-Identifier: Apache-2.0
"""The text of tool calls, as data for the guides that force or constrain calls."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.checks import PositionError
from families.parsers.registry import GENERIC


@dataclass(frozen=True, slots=True)
class CallForm:
    """The text of one call: `begin` name `middle` arguments `end`.

    trigger: text that only a call starts with; None if a call looks like any JSON.
    separator: text between several calls; None if the family makes one call at a time.
    brackets: text around several calls.
    """

    begin: str
    middle: str
    end: str
    trigger: str | None = None
    separator: str | None = None
    brackets: tuple[str, str] | None = None


# Tool parser -> the form that the family's prompt asks for.
CALL_FORMS: Mapping[str, CallForm] = {
    "hermes": CallForm(
        begin='<tool_call>\n{"name": "',
        middle='", "arguments": ',
        end="}\n</tool_call>",
        trigger="<tool_call>",
        separator="\n",
    ),
    "llama3_json": CallForm(begin='{"name": "', middle='", "parameters": ', end="}"),
    "gemma": CallForm(begin='{"name": "', middle='", "parameters": ', end="}", separator=", ", brackets=("[", "]")),
}


def call_form(tool_parser: str | None, tool_choice: str) -> CallForm:
    """The form of a tool parser's calls, or without one that of forced calls, which need no prompt that asks for it.

    Raises RequestError (param "tools") for a `tool_choice` of "auto" without a parser.
    """
    if tool_parser is None and tool_choice == "auto":
        raise PositionError(
            "tools",
            "need a tool_choice that forces a call: the served model's template has no tool-call format known here",
        )
    return CALL_FORMS[tool_parser or GENERIC]
