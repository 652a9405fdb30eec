# SPDX-License-Identifier: Apache-2.0
"""Tool calls as structural tags, for each `tool_choice`."""

from collections.abc import Sequence

from common.chat.tools import FUNCTION_CHOICE, Tool
from families.parsers.call_forms import CallForm
from preprocessing.guides.structural_tags import (
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


def forced_calls(form: CallForm, tools: Sequence[Tool], tool_choice: str, *, parallel: bool) -> Format:
    """The calls that `tool_choice` "required" (one or more) or "function:<name>" (one) asks for; all schemas bind."""
    if tool_choice.startswith(FUNCTION_CHOICE):
        name = tool_choice.removeprefix(FUNCTION_CHOICE)
        return next(_call(form, tool, strict=True) for tool in tools if tool.name == name)
    return _calls(form, [_call(form, tool, strict=True) for tool in tools], parallel=parallel)


def strict_calls(form: CallForm, tools: Sequence[Tool], *, parallel: bool) -> Format | None:
    """Free text in which calls of strict tools follow their schemas (`tool_choice` "auto"); None if nothing binds.

    At most one call (`parallel` False) is enforced if a call differs from other text in its first characters.
    """
    only_one = form.trigger is not None and not parallel
    if form.trigger is not None:
        if not only_one and not any(tool.strict for tool in tools):
            return None
        # All tools share the trigger: one that is not strict needs its tag too, or it could not be called.
        tags = [_call(form, tool, strict=tool.strict) for tool in tools]
        return triggered_tags([form.trigger], tags, only_one=only_one)
    tags = [_call(form, tool, strict=True) for tool in tools if tool.strict]
    # The trigger is all that precedes the arguments, as an answer may well hold other JSON objects with a "name".
    return triggered_tags([item["begin"] for item in tags], tags) if tags else None


def calls_or(answer: Format, form: CallForm, tools: Sequence[Tool], *, parallel: bool) -> Format:
    """Either calls or a constrained answer (`tool_choice` "auto" with a response format)."""
    return either(_calls(form, [_call(form, tool, strict=tool.strict) for tool in tools], parallel=parallel), answer)


def _call(form: CallForm, tool: Tool, *, strict: bool) -> Format:
    schema = tool.parameters if strict else _ANY_ARGUMENTS
    return tag(form.begin + tool.name + form.middle, json_schema(schema), form.end)


def _calls(form: CallForm, tags: list[Format], *, parallel: bool) -> Format:
    if not parallel or form.separator is None:
        return tag_list(tags, "", only_one=True)
    if form.brackets is None:
        return tag_list(tags, form.separator)
    opening, closing = form.brackets
    return either(
        tag_list(tags, "", only_one=True), sequence(const(opening), tag_list(tags, form.separator), const(closing))
    )
