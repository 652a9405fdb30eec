# SPDX-License-Identifier: Apache-2.0
"""Chat requests with tools and formats, and the guides that they get."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from common.chat.request import ChatRequest
from common.errors import RequestError
from families.parsers import AnswerFormat
from preprocessing.guides.build import Guide, Reasoning, build_guide

PLAIN = AnswerFormat()
QWEN3 = AnswerFormat("think", tool_parser="hermes")
GEMMA3 = AnswerFormat(tool_parser="gemma")
LLAMA3 = AnswerFormat(tool_parser="llama3_json")
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
Accepts = Callable[[Guide | None, str], bool]


def tool(name: str, parameters: Any = CITY, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


TOOLS = [
    tool("get_weather"),
    tool("add", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
]
STRICT_TOOLS = [tool("get_weather", strict=True), tool("free")]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
WEATHER_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "北京"}}\n</tool_call>'
ADD_CALL = '<tool_call>\n{"name": "add", "arguments": {"n": 1}}\n</tool_call>'
WRONG_CALLS = [
    WEATHER_CALL.replace("city", "town"),
    WEATHER_CALL.replace("get_weather", "get_postcode"),
    ADD_CALL.replace("1", '"1"'),
    ADD_CALL.replace("</tool_call>", ""),
    "Hello",
    "",
]


def guide_of(
    answer_format: AnswerFormat = PLAIN,
    reasoning: Reasoning = "none",
    *,
    structural_tags: bool = True,
    call_styles: bool = True,
    **fields: Any,
) -> Guide | None:
    chat = ChatRequest.parse(json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}))
    return build_guide(chat, answer_format, reasoning, structural_tags=structural_tags, call_styles=call_styles)


def refused(answer_format: AnswerFormat = PLAIN, **fields: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        guide_of(answer_format, **fields)
    return error.value
