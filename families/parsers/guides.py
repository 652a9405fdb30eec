# SPDX-License-Identifier: Apache-2.0
"""Tool calls as constraints on decoding, one form per tool parser."""

from collections.abc import Sequence
from dataclasses import dataclass

from common.chat.tools import FUNCTION_CHOICE, Tool
from common.checks import fault
from families.parsers.structural_tags import (
    Format,
    const,
    either,
    json_schema,
    sequence,
    tag,
    tag_list,
    triggered_tags,
)

_ANY_ARGUMENTS = {"type": "object"}


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a family writes a call: `begin` name `middle` arguments `end`.

    trigger: text that only a call starts with; None where a call looks like any JSON.
    separator: between several calls; None where the family makes one call at a time.
    brackets: around several calls.
    """

    begin: str
    middle: str
    end: str
    trigger: str | None = None
    separator: str | None = None
    brackets: tuple[str, str] | None = None

    def tag(self, tool: Tool, *, strict: bool) -> Format:
        schema = tool.parameters if strict else _ANY_ARGUMENTS
        return tag(self.begin + tool.name + self.middle, json_schema(schema), self.end)


# Tool parser -> the form that the family's prompt asks for.
CALL_FORMS: dict[str, CallForm] = {
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


def call_form(tool_parser: str | None) -> CallForm:
    """Raises RequestError (param "tools") for a model without a known form."""
    if tool_parser is None:
        raise fault("tools", "cannot be used: the served model's chat template has no tool-call format known here")
    return CALL_FORMS[tool_parser]


def forced_calls(form: CallForm, tools: Sequence[Tool], tool_choice: str, *, parallel: bool) -> Format:
    """`tool_choice` "required": one or more calls; "function:<name>": one call of that tool. All schemas bind."""
    if tool_choice.startswith(FUNCTION_CHOICE):
        name = tool_choice.removeprefix(FUNCTION_CHOICE)
        return next(form.tag(tool, strict=True) for tool in tools if tool.name == name)
    return _calls(form, [form.tag(tool, strict=True) for tool in tools], parallel=parallel)


def strict_calls(form: CallForm, tools: Sequence[Tool], *, parallel: bool) -> Format | None:
    """`tool_choice` "auto": free text in which the calls of strict tools follow their schemas; None if nothing binds.

    One call at most (`parallel` False) is enforced where a call can be told from text by its first characters.
    """
    only_one = form.trigger is not None and not parallel
    if form.trigger is not None:
        if not only_one and not any(tool.strict for tool in tools):
            return None
        # The trigger is of all tools: one that is not strict needs its tag too, or it could not be called.
        return triggered_tags([form.trigger], [form.tag(tool, strict=tool.strict) for tool in tools], only_one=only_one)
    tags = [form.tag(tool, strict=True) for tool in tools if tool.strict]
    # The whole beginning is the trigger, as an answer may well hold other JSON objects with a "name".
    return triggered_tags([item["begin"] for item in tags], tags) if tags else None


def calls_or(answer: Format, form: CallForm, tools: Sequence[Tool], *, parallel: bool) -> Format:
    """`tool_choice` "auto" with a constrained answer: either calls or that answer."""
    return either(_calls(form, [form.tag(tool, strict=tool.strict) for tool in tools], parallel=parallel), answer)


def _calls(form: CallForm, tags: list[Format], *, parallel: bool) -> Format:
    several = parallel and form.separator is not None
    if not several or form.separator is None:
        return tag_list(tags, "", only_one=True)
    if form.brackets is None:
        return tag_list(tags, form.separator)
    opening, closing = form.brackets
    return either(
        tag_list(tags, "", only_one=True), sequence(const(opening), tag_list(tags, form.separator), const(closing))
    )
