# SPDX-License-Identifier: Apache-2.0
"""The tools of a chat request: `tools` and `tool_choice`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.checks import PositionError, expect, expect_one_of, shorten

# OpenAI's rule. Such names need no escaping in prompts and grammars.
TOOL_NAME = r"[a-zA-Z0-9_.-]{1,64}"
_NAME = re.compile(TOOL_NAME)
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}
FUNCTION_CHOICE = "function:"


@dataclass(frozen=True, slots=True)
class Tool:
    """One function the model may call.

    definition: the OpenAI tool object, which chat templates render.
    parameters: JSON schema of the arguments, always of type object.
    strict: the arguments must follow the schema even if `tool_choice` is "auto".
    """

    name: str
    definition: dict[str, Any]
    parameters: dict[str, Any]
    strict: bool


def read_tools(value: Any) -> tuple[Tool, ...]:
    """Read `tools`; raises RequestError (param "tools") naming the invalid position."""
    if value is None:
        return ()
    tools = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(expect(value, list, "tools")))
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        if tool.name in seen:
            raise PositionError(f"tools[{index}].function.name", f"'{tool.name}' is used twice")
        seen.add(tool.name)
    return tools


def _tool(value: Any, where: str) -> Tool:
    definition = expect(value, dict, where)
    expect_one_of(definition.get("type"), ("function",), f"{where}.type")
    where = f"{where}.function"
    function = expect(definition.get("function"), dict, where)
    name = expect(function.get("name"), str, f"{where}.name")
    if not _NAME.fullmatch(name):
        raise PositionError(f"{where}.name", f"must match ^{TOOL_NAME}$")
    if function.get("description") is not None:
        expect(function["description"], str, f"{where}.description")
    strict = False
    if "strict" in function:
        strict = function["strict"] is not None and expect(function["strict"], bool, f"{where}.strict")
        # An option of decoding: no family was trained with it in the prompt.
        definition = {**definition, "function": {key: item for key, item in function.items() if key != "strict"}}
    return Tool(name, definition, _parameters(function.get("parameters"), f"{where}.parameters"), strict)


def _parameters(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return _NO_PARAMETERS
    schema = expect(value, dict, where)
    given = schema.get("type")
    # A call's arguments are an object, whatever else a schema allows.
    if given is not None and not (isinstance(given, list) and "object" in given):
        expect_one_of(given, ("object",), f"{where}.type")
    return {**schema, "type": "object"} if "type" in schema else {"type": "object", **schema}


def read_tool_choice(value: Any, tools: Sequence[Tool]) -> str:
    """Read `tool_choice` as "auto", "none", "required" or "function:<name>".

    Raises RequestError (param "tool_choice") for another value or a tool that is missing.
    """
    if isinstance(value, dict):
        choice = FUNCTION_CHOICE + _forced_name(value, tools)
    else:
        choice = "auto" if value is None else expect_one_of(value, ("auto", "none", "required"), "tool_choice")
    if choice not in ("auto", "none") and not tools:
        raise PositionError("tool_choice", "needs tools, and the request has none")
    return choice


def _forced_name(value: dict[str, Any], tools: Sequence[Tool]) -> str:
    expect_one_of(value.get("type"), ("function",), "tool_choice.type")
    function = expect(value.get("function"), dict, "tool_choice.function")
    name = expect(function.get("name"), str, "tool_choice.function.name")
    if tools and name not in {tool.name for tool in tools}:
        raise PositionError("tool_choice.function.name", f"'{shorten(name)}' is not among the request's tools")
    return name
