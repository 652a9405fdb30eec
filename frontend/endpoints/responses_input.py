# SPDX-License-Identifier: Apache-2.0
"""Bodies of `/v1/responses`, converted to equivalent chat bodies."""

import re
from typing import Any

from pydantic import ValidationError

from common.chat.messages import DETAILS
from common.errors import RequestError
from frontend.errors import describe
from frontend.protocol.refused import REFUSED_IN_RESPONSES, refuse

# Fields of a chat that are taken unchanged.
SAME = (
    *("model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "priority"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("min_tokens", "ignore_eos", "stop", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens"),
    *("bad_words", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("response_format", "parallel_tool_calls", "chat_template_kwargs", "enable_thinking", "reasoning_effort"),
    *("separate_reasoning", "include_reasoning", "add_generation_prompt", "continue_final_message"),
)
# Field of a chat -> the field of a response that sets it, under which errors name it.
RENAMED = {
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
LOGPROBS = "message.output_text.logprobs"
ITEMS = ("message", "function_call", "function_call_output", "reasoning")
TEXT_PARTS = ("input_text", "output_text", "text")
VERBOSITIES = ("low", "medium", "high")


def chat_body(raw: dict[str, Any]) -> dict[str, Any]:
    """Convert a body; it is then checked as a chat body. Raises RequestError naming a field that is not supported."""
    refuse(raw, REFUSED_IN_RESPONSES)
    body = {name: raw[name] for name in SAME if raw.get(name) is not None}
    body["messages"] = _messages(raw)
    if raw.get("max_output_tokens") is not None:
        body["max_tokens"] = raw["max_output_tokens"]
    if raw.get("tools") not in (None, []):
        body["tools"] = [_tool(tool, index) for index, tool in enumerate(_list(raw["tools"], "tools"))]
    if raw.get("tool_choice") is not None:
        body["tool_choice"] = _tool_choice(raw["tool_choice"])
    effort = _object(raw.get("reasoning"), "reasoning").get("effort")
    if effort is not None:
        body["reasoning_effort"] = effort
    _read_metadata(raw)
    return body | _text(raw) | _logprobs(raw)


def own_names(error: RequestError | ValidationError, raw: dict[str, Any]) -> RequestError:
    """Return an error of the converted chat body with the names of the fields of `raw`, the body that was converted."""
    _, message, given = describe(error)
    param, own = given or "", given
    chat_name = re.split(r"[.\[]", param)[0]
    if chat_name == "tools":
        own = re.sub(r"^(tools\[\d+\])\.function\b", r"\1", param)
    elif chat_name in RENAMED and raw.get(chat_name) is None:
        # The items are not numbered as the messages are.
        own = "input" if chat_name == "messages" else RENAMED[chat_name] + param.removeprefix(chat_name)
    if param and own:
        message = message.replace(param, own, 1)
    kind = error.kind if isinstance(error, RequestError) else "invalid_request"
    return RequestError(message, kind=kind, param=own)


def _text(raw: dict[str, Any]) -> dict[str, Any]:
    """Read `text`: the format as that of a chat. The verbosity is a hint, which is not followed."""
    text = _object(raw.get("text"), "text")
    if text.get("verbosity") is not None and text["verbosity"] not in VERBOSITIES:
        raise RequestError(f"text.verbosity must be one of {', '.join(VERBOSITIES)}", param="text.verbosity")
    if text.get("format") is None:
        return {}
    if raw.get("response_format") is not None:
        raise RequestError("give only one of text.format and response_format", param="text.format")
    return {"response_format": _response_format(_object(text["format"], "text.format"))}


def _logprobs(raw: dict[str, Any]) -> dict[str, Any]:
    include = _list(raw["include"], "include") if raw.get("include") is not None else []
    if not all(isinstance(one, str) for one in include):
        raise RequestError("include must be a list of texts", param="include")
    if LOGPROBS in include:
        return {"logprobs": True, "top_logprobs": raw.get("top_logprobs")}
    if raw.get("top_logprobs"):
        raise RequestError(f"top_logprobs is only allowed with {LOGPROBS} in include", param="top_logprobs")
    return {}


def _read_metadata(raw: dict[str, Any]) -> None:
    """Check `metadata`, which the answer repeats and nothing else reads."""
    metadata = _object(raw.get("metadata"), "metadata")
    if not all(isinstance(value, str) for value in metadata.values()):
        raise RequestError("the values of metadata must be texts", param="metadata")


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
    kind = item.get("type") or ("item_reference" if "id" in item and "role" not in item else "message")
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
    elif kind == "item_reference":
        raise RequestError(
            f"{where} is an item_reference, but no responses are stored: send the item itself. Clients do so with "
            "the option store: false",
            param="input",
        )
    elif kind != "reasoning":  # reasoning of earlier turns is dropped, as the chat templates do
        raise RequestError(f"{where}.type must be one of {', '.join(ITEMS)}", param="input")


def _content(content: Any, where: str) -> Any:
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS:
            parts.append({"type": "text", "text": part.get("text")})
        elif kind == "refusal":  # a part of an earlier answer
            parts.append({"type": "refusal", "refusal": part.get("refusal")})
        elif kind == "input_image":
            parts.append({"type": "image_url", "image_url": _image(part, where)})
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
        return _named(choice)
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        tools = [_named(tool) if isinstance(tool, dict) else tool for tool in _list(choice.get("tools"), "tool_choice")]
        return {"type": "allowed_tools", "allowed_tools": {"mode": choice.get("mode"), "tools": tools}}
    return choice


def _named(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": function.get("type"), "function": {"name": function.get("name")}}


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
