# SPDX-License-Identifier: Apache-2.0
"""Tool calls as structural tags, for each `tool_choice`, and forced ones as a JSON schema."""

from collections.abc import Sequence
from typing import Any

from common.chat.tools import FUNCTION_CHOICE, Tool
from families.parsers.formats import CallForm
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
    calls = [_call(form, tool, strict=True) for tool in tools if may_be_called(tool, tool_choice)]
    if tool_choice.startswith(FUNCTION_CHOICE):
        return _calls(form, calls, parallel=False) if form.around else calls[0]
    return _calls(form, calls, parallel=parallel)


def forced_calls_schema(tools: Sequence[Tool], tool_choice: str, *, parallel: bool) -> dict[str, Any]:
    """The schema of the same calls as JSON, for engines without structural tags: one object, or an array of several."""
    calls, definitions = [], {}
    for number, tool in enumerate(tool for tool in tools if may_be_called(tool, tool_choice)):
        place = f"#/$defs/{number}"
        definitions[str(number)] = _moved(tool.parameters, place)
        properties = {"name": {"const": tool.name}, "arguments": {"$ref": place}}
        calls.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    one = calls[0] if len(calls) == 1 else {"anyOf": calls}
    several = parallel and not tool_choice.startswith(FUNCTION_CHOICE)
    schema = {"type": "array", "items": one, "minItems": 1} if several else one
    return {**schema, "$defs": definitions}


def may_be_called(tool: Tool, tool_choice: str) -> bool:
    """Whether a forced call may be one of this tool."""
    return not tool_choice.startswith(FUNCTION_CHOICE) or tool.name == tool_choice.removeprefix(FUNCTION_CHOICE)


def _moved(schema: Any, place: str) -> Any:
    """A schema inside another one, at `place`, with its references to parts of its own."""
    if isinstance(schema, dict):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            # Values are no schemas; a list under this name is never a property's schema.
            else (value if key == "enum" and isinstance(value, list) else _moved(value, place))
            for key, value in schema.items()
        }
    return [_moved(item, place) for item in schema] if isinstance(schema, list) else schema


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
        if form.around:
            opening, closing = form.around
            several = tag_list(tags, form.separator or "", only_one=not parallel or form.separator is None)
            tags = [tag(opening, several, closing)]
        return triggered_tags([form.trigger], tags, only_one=only_one)
    tags = [_call(form, tool, strict=True) for tool in tools if tool.strict]
    # The trigger is all that precedes the arguments, as an answer may well hold other JSON objects with a "name".
    return triggered_tags([item["begin"] for item in tags], tags) if tags else None


def calls_or(answer: Format, form: CallForm, tools: Sequence[Tool], *, parallel: bool) -> Format:
    """Either calls or a constrained answer (`tool_choice` "auto" with a response format)."""
    return either(_calls(form, [_call(form, tool, strict=tool.strict) for tool in tools], parallel=parallel), answer)


def _call(form: CallForm, tool: Tool, *, strict: bool) -> Format:
    schema = tool.parameters if strict else _ANY_ARGUMENTS
    return tag(form.begin + tool.name + form.middle, json_schema(schema, form.style), form.end)


def _calls(form: CallForm, tags: list[Format], *, parallel: bool) -> Format:
    if form.around:
        several = tag_list(tags, form.separator or "", only_one=not parallel or form.separator is None)
        return sequence(const(form.around[0]), several, const(form.around[1]))
    if not parallel or form.separator is None:
        return tag_list(tags, "", only_one=True)
    if form.brackets is None:
        return tag_list(tags, form.separator)
    opening, closing = form.brackets
    return either(
        tag_list(tags, "", only_one=True), sequence(const(opening), tag_list(tags, form.separator), const(closing))
    )
