# SPDX-License-Identifier: Apache-2.0
"""Builds the guide that constrains an answer: a type and a text of the engine contract.

Sources are `response_format`, `structured_outputs`, and the tools with `tool_choice` and `parallel_tool_calls`. If the
family reasons first, the constraint begins after the reasoning.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from common.chat.request import ChatRequest
from common.chat.tools import Tool
from common.checks import PositionError, check_tree, expect, expect_one_of, shorten
from families.parsers import AnswerFormat
from families.parsers.formats import CallForm, ReasoningFormat, call_form
from preprocessing.guides.limits import check_grammar, check_pattern, check_schema, check_size, check_structure
from preprocessing.guides.schemas import prepare_schema
from preprocessing.guides.structural_tags import (
    Format,
    const,
    either,
    grammar,
    json_schema,
    optional,
    reasoning_block,
    regex,
    sequence,
)
from preprocessing.guides.tool_calls import (
    calls_or,
    fitted,
    forced_calls,
    forced_calls_schema,
    may_be_called,
    strict_calls,
)

# Guide types of the contract -> whether they need a guide text.
GUIDE_TYPES = {"json": False, "json_schema": True, "regex": True, "ebnf_grammar": True, "structural_tag": True}

_MAX_KEPT = 16_384  # characters of a schema that is kept prepared

Reasoning = Literal["none", "may_open", "open"]


@dataclass(frozen=True, slots=True)
class Guide:
    """A constraint that the engine enforces. guide_type: a key of GUIDE_TYPES. guide: its text, None for "json"."""

    guide_type: str
    guide: str | None


@dataclass(frozen=True, slots=True)
class _Constraint:
    """A constraint on the whole answer in two forms: a guide, and a part of a larger structural tag."""

    guide: Guide
    part: Format


def build_guide(
    chat: ChatRequest,
    answer_format: AnswerFormat,
    reasoning: Reasoning,
    *,
    structural_tags: bool = True,
    call_styles: bool = True,
) -> Guide | None:
    """The guide of a chat request, or None if the answer is not constrained.

    reasoning: whether reasoning precedes the answer, see `reasoning_state`.
    structural_tags: whether the engine enforces them; without, forced calls are JSON only, which all parsers read.
    call_styles: whether the engine enforces arguments that are not JSON; without, calls of families that write such
        arguments are JSON only if they are forced, and free otherwise.
    Raises RequestError with the invalid OpenAI field as its param.
    """
    constraint = _answer_constraint(chat)
    family = answer_format.reasoning_format
    if constraint and family and family.before_answer and (structural_tags or family.channels):
        constraint = _structural(_wrapped(constraint.part, family))
    if chat.tools:
        constraint = _with_tools(
            chat, answer_format, constraint, structural_tags=structural_tags, call_styles=call_styles
        )
    if constraint and constraint.guide.guide:
        check_size(constraint.guide.guide, "tools" if chat.tools else "response_format")
    if constraint is None or reasoning == "none" or family is None:
        return constraint.guide if constraint else None
    block = reasoning_block((family.open, family.close), family.after, starts_open=reasoning == "open")
    return _structural(sequence(block, constraint.part)).guide


def reasoning_state(chat: ChatRequest, answer_format: AnswerFormat, prompt: str, thinking: bool) -> Reasoning:
    """Whether the model may still reason after `prompt`, the rendered text: the one judgement of guides and parsers.

    Of a continued message the last tag in the prompt counts, which must be one of that message.
    thinking: the value of `enable_thinking` that the template was rendered with.
    """
    if answer_format.reasoning_tags is None:
        return "none"
    opening, closing = answer_format.reasoning_tags
    if chat.continue_final_message:
        return "open" if prompt.rfind(opening) > prompt.rfind(closing) else "none"
    tail = prompt.rstrip()
    if tail.endswith(opening):
        return "open"
    return "may_open" if thinking and not tail.endswith(closing) else "none"


def check_guide(guide_type: str | None, guide: str | None) -> Guide | None:
    """A guide given as tensors; raises RequestError for an unknown type, a missing text or one beyond the limits."""
    where = "guided_decoding_guide"
    if guide_type is None:
        if guide is not None:
            raise PositionError(where, "needs guided_decoding_guide_type")
        return None
    expect_one_of(guide_type, GUIDE_TYPES, "guided_decoding_guide_type")
    if GUIDE_TYPES[guide_type] and not guide:
        raise PositionError(where, f"must not be empty for type {guide_type}")
    if guide:
        _check_limits(guide_type, guide, where)
    if guide and guide_type == "json_schema":
        return _schema(guide, where).guide
    if guide and guide_type == "structural_tag":
        return Guide(guide_type, _dump(_structure(guide, where)))
    return Guide(guide_type, guide)


def _check_limits(guide_type: str, guide: str, where: str) -> None:
    _text(guide, where)
    check_size(guide, where)
    if guide_type == "regex":
        check_pattern(guide, where)
    elif guide_type == "ebnf_grammar":
        check_grammar(guide, where)


def _wrapped(answer: Format, family: ReasoningFormat) -> Format:
    """An answer between the markup of content."""
    before, after = const(family.before_answer), const(family.after_answer)
    if family.channels:  # Without its header a message has no channel.
        return sequence(before, answer)
    return sequence(optional(before), answer, optional(after))


def _with_tools(
    chat: ChatRequest,
    answer_format: AnswerFormat,
    answer: _Constraint | None,
    *,
    structural_tags: bool,
    call_styles: bool,
) -> _Constraint | None:
    forced = chat.tool_choice != "auto"
    form = call_form(answer_format.tool_parser, chat.tool_choice)
    enforced = form is not None and (form.style == "json" or call_styles)
    if form is None or not (forced or enforced):
        if answer:
            raise PositionError("tools", "cannot be combined with a constrained answer for the served model")
        return None  # Calls of this format cannot be constrained; they are read as they come.
    parallel = chat.parallel_tool_calls
    places = {tool.name: f"tools[{n}].function.parameters" for n, tool in enumerate(chat.tools)}
    tools = [
        replace(tool, parameters=_prepared(tool.parameters, places[tool.name], best_effort=not tool.strict))
        if (forced and may_be_called(tool, chat.tool_choice)) or (tool.strict and not forced)
        else tool
        for tool in chat.tools
    ]
    if forced:
        return _forced(chat, form, tools, places, tags=structural_tags, enforced=enforced)
    tools = _fitting(tools, form, chat.tool_choice, places)
    if answer:
        return _structural(calls_or(answer.part, form, tools, parallel=parallel))
    strict = strict_calls(form, tools, parallel=parallel)
    return _structural(strict) if strict else None


def _forced(
    chat: ChatRequest, form: CallForm, tools: Sequence[Tool], places: Mapping[str, str], *, tags: bool, enforced: bool
) -> _Constraint:
    """Forced calls: in their form, or as JSON alone if the engine or the form's notation cannot enforce that."""
    parallel = chat.parallel_tool_calls
    constraint = None
    if enforced:
        with suppress(PositionError):
            fitting = _fitting(tools, form, chat.tool_choice, places)
            constraint = _structural(forced_calls(form, fitting, chat.tool_choice, parallel=parallel))
    if constraint and tags:
        return constraint
    schema = forced_calls_schema(tools, chat.tool_choice, parallel=parallel and form.separator is not None)
    guide = Guide("json_schema", _dump(schema))
    # After reasoning only a structural tag can hold the calls.
    return replace(constraint, guide=guide) if constraint else _Constraint(guide, json_schema(schema))


def _fitting(tools: Sequence[Tool], form: CallForm, tool_choice: str, places: Mapping[str, str]) -> list[Tool]:
    """The tools with schemas as the notation of the form takes them; raises RequestError for what it cannot enforce."""
    found = []
    for tool in tools:
        binds = tool.strict if tool_choice == "auto" else may_be_called(tool, tool_choice)
        try:
            parameters = fitted(tool.parameters, form.style, best_effort=not tool.strict) if binds else tool.parameters
        except ValueError as error:
            message = f"has {error}, which cannot be enforced in calls of the served model"
            raise PositionError(places[tool.name], message) from None
        found.append(replace(tool, parameters=parameters))
    return found


def _prepared(schema: dict[str, Any], where: str, *, best_effort: bool) -> dict[str, Any]:
    """The schema as the grammar engine enforces it, within the limits; not to be changed, because it is kept."""
    text = json.dumps(schema)
    # Clients send the same tools with every turn of a chat.
    return (_prepared_text if len(text) <= _MAX_KEPT else _prepared_text.__wrapped__)(text, where, best_effort)


@lru_cache(maxsize=256)
def _prepared_text(text: str, where: str, best_effort: bool) -> dict[str, Any]:
    schema = json.loads(text)
    check_schema(schema, where)
    prepared = prepare_schema(schema, where, best_effort=best_effort)
    check_schema(prepared, where)
    return prepared


def _answer_constraint(chat: ChatRequest) -> _Constraint | None:
    constraint = _response_format(chat.response_format) if chat.response_format is not None else None
    if chat.structured_outputs is None:
        return constraint
    if constraint:
        raise PositionError("structured_outputs", "cannot be combined with response_format")
    return _structured_outputs(chat.structured_outputs)


def _response_format(value: Mapping[str, Any]) -> _Constraint | None:
    kind = expect_one_of(value.get("type"), ("text", "json_object", "json_schema"), "response_format.type")
    if kind == "text":
        return None
    if kind == "json_object":
        return _Constraint(Guide("json", None), json_schema({"type": "object"}))
    wrapper = expect(value.get("json_schema"), dict, "response_format.json_schema")
    if wrapper.get("name") is not None:
        expect(wrapper["name"], str, "response_format.json_schema.name")
    strict = wrapper.get("strict")
    if strict is not None:
        expect(strict, bool, "response_format.json_schema.strict")
    return _schema(wrapper.get("schema"), "response_format.json_schema.schema", best_effort=strict is False)


def _structured_outputs(value: Mapping[str, Any]) -> _Constraint:
    given = [name for name, item in value.items() if item is not None]
    if len(given) != 1:
        raise PositionError("structured_outputs", f"must have exactly one of {', '.join(_STRUCTURED_OUTPUTS)}")
    name = expect_one_of(given[0], _STRUCTURED_OUTPUTS, "structured_outputs")
    return _STRUCTURED_OUTPUTS[name](value[name], f"structured_outputs.{name}")


def _schema(value: Any, where: str, *, best_effort: bool = False) -> _Constraint:
    schema = expect(_parsed(value, where) if isinstance(value, str) else value, dict, where)
    schema = _prepared(schema, where, best_effort=best_effort)
    return _Constraint(Guide("json_schema", _dump(schema)), json_schema(schema))


def _structure(value: Any, where: str) -> dict[str, Any]:
    """A structural tag with the schemas in it prepared."""
    structure = expect(_parsed(value, where) if isinstance(value, str) else value, dict, where)
    check_structure(structure, where)
    return {name: _with_schemas(item, f"{where}.{name}", name) for name, item in structure.items()}


def _with_schemas(value: Any, where: str, name: str) -> Any:
    if name in ("json_schema", "schema") and isinstance(value, dict):
        return _prepared(value, where, best_effort=False)
    if isinstance(value, dict):
        return {key: _with_schemas(item, f"{where}.{shorten(key, 40)}", key) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_schemas(item, f"{where}[{n}]", "") for n, item in enumerate(value)]
    return value


def _parsed(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise PositionError(where, "is not valid JSON") from None
    check_tree(value, where)
    return value


def _regex(value: Any, where: str) -> _Constraint:
    pattern = _text(value, where)
    check_pattern(pattern, where)
    return _Constraint(Guide("regex", pattern), regex(pattern))


def _grammar(value: Any, where: str) -> _Constraint:
    ebnf = _text(value, where)
    check_grammar(ebnf, where)
    return _Constraint(Guide("ebnf_grammar", ebnf), grammar(ebnf))


def _choice(value: Any, where: str) -> _Constraint:
    choices = expect(value, list, where)
    if not choices:
        raise PositionError(where, "must not be empty")
    check_schema({"enum": choices}, where)
    return _structural(either(*(const(_text(choice, f"{where}[{i}]")) for i, choice in enumerate(choices))))


def _text(value: Any, where: str) -> str:
    text = expect(value, str, where)
    if not text:
        raise PositionError(where, "must not be empty")
    if "\0" in text:  # xgrammar reads patterns as C strings.
        raise PositionError(where, "must not hold a NUL character")
    return text


def _structural(part: Format) -> _Constraint:
    return _Constraint(Guide("structural_tag", _dump({"type": "structural_tag", "format": part})), part)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_STRUCTURED_OUTPUTS: dict[str, Callable[[Any, str], _Constraint]] = {
    "json": _schema,
    "regex": _regex,
    "choice": _choice,
    "grammar": _grammar,
}
