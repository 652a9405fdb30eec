# SPDX-License-Identifier: Apache-2.0
"""Tool calls as structural tags, for each `tool_choice`, and forced ones as a JSON schema."""

from collections.abc import Sequence
from typing import Any

from common.chat.tools import FUNCTION_CHOICE, Tool
from families.parsers.formats import CallForm
from preprocessing.guides.structural_tags import (
    ANY_TEXT,
    Format,
    const,
    either,
    json_schema,
    optional,
    regex,
    sequence,
    tag,
    tag_list,
    triggered_tags,
)

_FREE = "{free}"
# Notations for which xgrammar takes only some schemas.
LIMITED_STYLES = frozenset({"minimax_m3_xml"})
_TEXT = {"type": "string"}
_ANY_ARGUMENTS = {"type": "object"}


def forced_calls(form: CallForm, tools: Sequence[Tool], tool_choice: str, *, parallel: bool) -> Format:
    """The calls that `tool_choice` "required" (one or more) or "function:<name>" (one) asks for; all schemas bind."""
    calls = [_call(form, tool, strict=True) for tool in tools if may_be_called(tool, tool_choice)]
    return _calls(form, calls, parallel=parallel and not tool_choice.startswith(FUNCTION_CHOICE))


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


def fitted(schema: dict[str, Any], style: str, *, best_effort: bool) -> dict[str, Any]:
    """A prepared schema as xgrammar takes it for a notation of arguments.

    best_effort: leave out what cannot be enforced within arguments. Raises ValueError with what cannot be enforced.
    """
    if style not in LIMITED_STYLES:
        return schema
    if fault := _fault(schema):
        raise ValueError(fault)
    return _fitted_parts(schema, best_effort)


def _fitted(part: Any, best_effort: bool) -> Any:
    if part is False:
        return False
    if part is True or not part.keys() & {"type", "enum", "anyOf", "$ref"}:
        return _TEXT  # Parsers read a value of no known type by its look, with the elements in it.
    if fault := _fault(part):
        if best_effort:
            return _TEXT
        raise ValueError(fault)
    return _fitted_parts(part, best_effort)


def _fault(part: dict[str, Any]) -> str | None:
    if "pattern" in part:
        return "a pattern, format or length of text"
    if part.get("type") == "object" and (part.get("additionalProperties", True) or "patternProperties" in part):
        return "an object with properties that the schema does not name"
    return None


def _fitted_parts(schema: dict[str, Any], best_effort: bool) -> dict[str, Any]:
    fixed = dict(schema)
    for key in ("properties", "$defs"):
        if key in schema:
            fixed[key] = {name: _fitted(part, best_effort) for name, part in schema[key].items()}
    for key in ("anyOf", "prefixItems"):
        if key in schema:
            fixed[key] = [_fitted(part, best_effort) for part in schema[key]]
    if schema.get("type") == "array":
        fixed["items"] = _fitted(schema.get("items", True), best_effort)
    return fixed


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
        if form.around and form.around[1]:
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
    if strict or form.style not in LIMITED_STYLES:
        arguments = json_schema(tool.parameters if strict else _ANY_ARGUMENTS, form.style)
    else:
        arguments = ANY_TEXT
    begin, in_begin, before = (form.begin + tool.name + form.middle).partition(_FREE)
    after, in_end, end = form.end.partition(_FREE)
    free = regex(form.free)
    if in_begin:
        return tag(begin, sequence(free, const(before), arguments), end=after)
    return tag(begin, sequence(arguments, const(after), free), end) if in_end else tag(begin, arguments, after)


def _calls(form: CallForm, tags: list[Format], *, parallel: bool) -> Format:
    calls = _bare_calls(form, tags, parallel=parallel)
    before, after = [optional(const(lead)) for lead in form.leads], [optional(const(form.tail))] if form.tail else []
    return sequence(*before, calls, *after) if before or after else calls


def _bare_calls(form: CallForm, tags: list[Format], *, parallel: bool) -> Format:
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
