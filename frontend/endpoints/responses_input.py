# SPDX-License-Identifier: Apache-2.0
"""Bodies of `/v1/responses`, converted to equivalent chat bodies."""

import re
from typing import Any

from pydantic import ValidationError

from common.chat.messages import DETAILS
from common.errors import RequestError
from frontend.errors import describe

# Fields that would change the answer and are not supported: no responses are stored and no tools are run.
REFUSED = ("previous_response_id", "conversation", "prompt", "background", "max_tool_calls", "top_logprobs")
SAME = ("model", "temperature", "top_p", "stream", "parallel_tool_calls", "chat_template_kwargs", "enable_thinking")
# Field of a chat -> the field of a response that it is made from.
_FIELDS = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
}
TEXT_PARTS = ("input_text", "output_text", "text")


def chat_body(raw: dict[str, Any]) -> dict[str, Any]:
    """Convert a body; it is then checked as a chat body. Raises RequestError naming a field that is not supported."""
    for name in REFUSED:
        if raw.get(name):
            raise RequestError(f"'{name}' is not supported", param=name)
    body = {name: raw[name] for name in SAME if raw.get(name) is not None}
    body["messages"] = _messages(raw)
    if raw.get("max_output_tokens") is not None:
        body["max_tokens"] = raw["max_output_tokens"]
    if raw.get("tools") not in (None, []):
        body["tools"] = [_tool(tool, index) for index, tool in enumerate(_list(raw["tools"], "tools"))]
    if raw.get("tool_choice") is not None:
        body["tool_choice"] = _tool_choice(raw["tool_choice"])
    text_format = _object(raw.get("text"), "text").get("format")
    if text_format is not None:
        body["response_format"] = _response_format(_object(text_format, "text.format"))
    effort = _object(raw.get("reasoning"), "reasoning").get("effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    return body


def response_error(error: RequestError | ValidationError) -> RequestError | ValidationError:
    """Return the error of a chat with the name that the field has in a response."""
    _, message, param = describe(error)
    chat = re.split(r"[.\[]", param or "", maxsplit=1)[0]
    if chat not in _FIELDS:
        return error
    # The positions in `messages` are not those in `input`.
    name = re.compile(rf"\b{chat}(\[\d+\])?")
    kind = error.kind if isinstance(error, RequestError) else "invalid_request"
    return RequestError(name.sub(_FIELDS[chat], message), kind=kind, param=name.sub(_FIELDS[chat], param or ""))


def _messages(raw: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    instructions = raw.get("instructions")
    if not isinstance(instructions, str | None):
        raise RequestError("instructions must be a text", param="instructions")
    if instructions:
        messages.append({"role": "system", "content": instructions})
    given = raw.get("input")
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for index, item in enumerate(_list(given, "input")):
        _add_item(messages, _object(item, f"input[{index}]"), f"input[{index}]")
    return messages


def _add_item(messages: list[dict[str, Any]], item: dict[str, Any], where: str) -> None:
    kind = item.get("type", "message")
    if kind == "message":
        messages.append({"role": item.get("role"), "content": _content(item.get("content"), where)})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        # Successive calls, and the text before them, are one turn of the model.
        if messages and messages[-1]["role"] == "assistant":
            messages[-1].setdefault("tool_calls", []).append(call)
        else:
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    elif kind == "function_call_output":
        content = _content(item.get("output"), where)
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
    elif kind != "reasoning":  # reasoning of earlier turns is dropped, as the chat templates do
        raise RequestError(f"{where}: items of this type are not supported", param="input")


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS:
            parts.append({"type": "text", "text": part.get("text")})
        elif kind == "input_image":
            parts.append({"type": "image_url", "image_url": _image(part, where)})
        elif kind == "refusal":  # A part of an earlier answer.
            parts.append({"type": "refusal", "refusal": part.get("refusal")})
        else:
            raise RequestError(f"{where}.content: only text and image parts are supported", param="input")
    return parts


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    url, detail = part.get("image_url"), part.get("detail")
    if not isinstance(url, str):
        raise RequestError(f"{where}.content: an input_image must have an image_url; files are not kept", param="input")
    if detail is not None and detail not in DETAILS:
        raise RequestError(f"{where}.content: detail must be one of {', '.join(DETAILS)}", param="input")
    return {"url": url, "detail": detail}


def _tool(tool: Any, index: int) -> dict[str, Any]:
    tool = _object(tool, f"tools[{index}]")
    if tool.get("type") != "function":
        raise RequestError(f"tools[{index}].type must be function", param="tools")
    names = ("name", "description", "parameters", "strict")
    return {"type": "function", "function": {name: tool[name] for name in names if tool.get(name) is not None}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _response_format(text_format: dict[str, Any]) -> dict[str, Any]:
    if text_format.get("type") != "json_schema":
        return {"type": text_format.get("type")}
    names = ("name", "schema", "strict")
    return {"type": "json_schema", "json_schema": {name: text_format[name] for name in names if name in text_format}}


def _object(value: Any, param: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RequestError(f"{param} must be an object", param=param.partition("[")[0])
    return value


def _list(value: Any, param: str) -> list[Any]:
    if not isinstance(value, list):
        raise RequestError(f"{param} must be a {'text or a ' if param == 'input' else ''}list", param=param)
    return value
