# SPDX-License-Identifier: Apache-2.0
"""Bodies of `/v1/responses`, converted to equivalent chat bodies."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from common.chat.media import PART_OPTIONS
from common.chat.messages import AUDIO, DETAILS, MEDIA
from common.errors import RequestError
from frontend.endpoints.own_names import OwnNames
from frontend.endpoints.sealed_reasoning import unseal
from frontend.protocol.common import as_list, as_object
from frontend.protocol.refused import REFUSED_IN_RESPONSES, refuse

# Fields of a chat that are taken unchanged.
SAME = (
    *("model", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "logit_bias", "priority"),
    *("allowed_token_ids", "cache_salt", "add_special_tokens", "documents"),
    *("truncate_prompt_tokens", "truncation_side"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("min_tokens", "ignore_eos", "stop", "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens"),
    *("bad_words", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"),
    *("response_format", "parallel_tool_calls", "chat_template_kwargs", "mm_processor_kwargs", "media_io_kwargs"),
    *("enable_thinking", "thinking", "reasoning_effort", "thinking_token_budget"),
    *("separate_reasoning", "include_reasoning", "add_generation_prompt", "continue_final_message"),
)
# Fields that are converted, or read here.
CONVERTED = (
    *("input", "instructions", "max_output_tokens", "tools", "tool_choice", "text", "reasoning", "include"),
    *("top_logprobs", "metadata", "store", "truncation"),
)
# Field of a chat -> the field of a response that sets it, under which errors name it, unless the chat's is given.
RENAMED = {
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
}
# The same for parts of these fields, and of those that have one name.
PARTS = {
    "response_format.json_schema": "text.format",
    "tool_choice.function": "tool_choice",
    "tool_choice.allowed_tools": "tool_choice",
}
PREVIOUS = "previous_response_id"
LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"
# What `include` may name. All but the first two concern tools that are not here, or what input is listed with.
INCLUDABLE = (
    *(LOGPROBS, SEALED, "message.input_image.image_url", "file_search_call.results", "web_search_call.results"),
    *("web_search_call.action.sources", "code_interpreter_call.outputs", "computer_call_output.output.image_url"),
)
ITEMS = ("message", "function_call", "function_call_output", "reasoning")
TEXT_PARTS = ("input_text", "output_text", "text")
SUMMARIES = ("auto", "concise", "detailed")
TRUNCATIONS = ("auto", "disabled")


def chat_body(
    raw: dict[str, Any], earlier: Sequence[dict[str, Any]] | None = None
) -> tuple[dict[str, Any], Callable[[], OwnNames]]:
    """Convert a body; it is then checked as a chat body. Raises RequestError naming a field that is not supported.

    earlier: the items of the stored responses that it continues, in place of `previous_response_id`; None if it
    continues none.
    The second value makes the names of the body's parts for an error. A body may have thousands, so not at once.
    """
    refuse({**raw, PREVIOUS: None} if earlier is not None else raw, REFUSED_IN_RESPONSES)
    body = {name: raw[name] for name in SAME if raw.get(name) is not None}
    turns = _Turns()
    turns.add_all(raw, earlier or ())
    # The names are kept for longer than the body.
    body["messages"], turns.messages = turns.messages, []
    if raw.get("max_output_tokens") is not None:
        body["max_tokens"] = raw["max_output_tokens"]
    if raw.get("tools") not in (None, []):
        body["tools"] = [_tool(tool, index) for index, tool in enumerate(_list(raw["tools"], "tools"))]
    if raw.get("tool_choice") is not None:
        body["tool_choice"] = _tool_choice(raw["tool_choice"])
    reasoning = _object(raw.get("reasoning"), "reasoning")
    if reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]
    _one_of(reasoning.get("summary"), SUMMARIES, "reasoning.summary")
    _one_of(raw.get("truncation"), TRUNCATIONS, "truncation")
    _read_metadata(raw)
    # A name of the chat stays if the client has used it.
    given = {name for name in SAME if raw.get(name) is not None}
    return body | _text(raw) | _logprobs(raw), partial(_own_names, given, len(raw.get("tools") or ()), turns)


def _own_names(given: set[str], tool_count: int, turns: "_Turns") -> OwnNames:
    names = {name: own for name, own in (RENAMED | PARTS).items() if name.partition(".")[0] not in given}
    tools = {f"tools[{index}].function": f"tools[{index}]" for index in range(tool_count)}
    return OwnNames(names | tools | turns.names())


def _text(raw: dict[str, Any]) -> dict[str, Any]:
    """Read `text`: its format and verbosity as those of a chat."""
    text = _object(raw.get("text"), "text")
    body = {"verbosity": text["verbosity"]} if text.get("verbosity") is not None else {}
    if text.get("format") is None:
        return body
    if raw.get("response_format") is not None:
        raise RequestError("give only one of text.format and response_format", param="text.format")
    return body | {"response_format": _response_format(_object(text["format"], "text.format"))}


def _logprobs(raw: dict[str, Any]) -> dict[str, Any]:
    include = _list(raw["include"], "include") if raw.get("include") is not None else []
    for index, one in enumerate(include):
        _one_of(one, INCLUDABLE, f"include[{index}]")
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


class _Turns:
    """The messages of a chat, and the places that their parts have in the body of a response."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        # The kind of each item, its place, the index of its message, and the number of that message's calls then.
        self._items: list[tuple[str, str, int, int]] = []

    def add_all(self, raw: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> None:
        """Add the instructions of a body, the items before it, and its input."""
        instructions, given = raw.get("instructions"), raw.get("input")
        if not isinstance(instructions, str | None):
            raise RequestError("instructions must be a text", param="instructions")
        if instructions:
            self.messages.append({"role": "system", "content": instructions})
            self._note("text", "instructions")
        for item in earlier:
            self._add_item(item, PREVIOUS)
        if isinstance(given, str):
            self.messages.append({"role": "user", "content": given})
            self._note("text", "input")
        else:
            for index, item in enumerate(_list(given, "input")):
                where = f"input[{index}]"
                self._add_item(_object(item, where), where)
        # Once at the end: to append to a text again and again takes quadratic time.
        for message in self.messages:
            if "reasoning_content" in message:
                message["reasoning_content"] = "\n\n".join(message["reasoning_content"])

    def names(self) -> dict[str, str]:
        """Positions in the messages -> the same in the body."""
        names: dict[str, str] = {}
        for kind, where, message, calls in self._items:
            at = f"messages[{message}]"
            names.setdefault(at, where)
            if kind == "message":
                names[at] = where
            elif kind == "text":
                names[f"{at}.content"] = where
            elif kind == "reasoning":
                names.setdefault(f"{at}.reasoning_content", where)
            elif kind == "function_call":
                names.setdefault(f"{at}.tool_calls", where)
                call = f"{at}.tool_calls[{calls - 1}]"
                names |= {call: where, f"{call}.function": where, f"{call}.id": f"{where}.call_id"}
            else:
                names |= {f"{at}.content": f"{where}.output", f"{at}.tool_call_id": f"{where}.call_id"}
        return names

    def _note(self, kind: str, where: str) -> None:
        """Note where the last message, or its last part, comes from."""
        self._items.append((kind, where, len(self.messages) - 1, len(self.messages[-1].get("tool_calls", ()))))

    def _add_item(self, item: dict[str, Any], where: str) -> None:
        kind = item.get("type") or ("item_reference" if "id" in item and "role" not in item else "message")
        if kind == "message":
            message = {"role": item.get("role"), "content": _content(item.get("content"), where)}
            if message["role"] == "assistant" and self._ends_with_reasoning():
                self.messages[-1] |= message
            else:
                self.messages.append(message)
        elif kind == "function_call":
            self._add_call(item)
        elif kind == "function_call_output":
            if item.get("output") is None:
                raise RequestError(f"{where}.output must be a text or a list of parts", param=f"{where}.output")
            content = _content(item.get("output"), where, "output")
            self.messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        elif kind == "reasoning":
            # An item with only the encrypted reasoning of another server adds nothing.
            text = _reasoning(item, "content", where) or _sealed(item, where) or _reasoning(item, "summary", where)
            if not text:
                return
            self._add_reasoning(text)
        elif kind == "item_reference":
            raise RequestError(
                f"{where} is an item_reference, but no responses are stored: send the item itself. Clients do so with "
                "the option store: false",
                param=where,
            )
        else:
            raise RequestError(f"{where}.type must be one of {', '.join(ITEMS)}", param=f"{where}.type")
        self._note(kind, where)

    def _add_call(self, item: dict[str, Any]) -> None:
        # Successive calls, and the text and the reasoning before them, are one turn of the model.
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _add_reasoning(self, text: str) -> None:
        """Begin a turn of the model with its reasoning, which the next item of the model continues."""
        if self._ends_with_reasoning():
            self.messages[-1]["reasoning_content"].append(text)
        else:
            self.messages.append({"role": "assistant", "content": None, "reasoning_content": [text]})

    def _ends_with_reasoning(self) -> bool:
        """Whether the last turn is only reasoning, which the next item of the model belongs to."""
        last = self.messages[-1] if self.messages else {}
        return "reasoning_content" in last and last["content"] is None and "tool_calls" not in last


def _reasoning(item: dict[str, Any], name: str, where: str) -> str:
    parts = [] if item.get(name) is None else _list(item[name], f"{where}.{name}")
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise RequestError(f"{where}.{name} must be a list of parts with a text", param=f"{where}.{name}")
        texts.append(text)
    return "\n\n".join(texts)


def _sealed(item: dict[str, Any], where: str) -> str:
    try:
        return unseal(item.get("encrypted_content"))
    except ValueError as error:
        where = f"{where}.encrypted_content"
        raise RequestError(f"{where} {error}", param=where) from None


def _content(content: Any, item: str, name: str = "content") -> Any:
    """Convert the content of a message, or the output of a function. item: its place. name: its field there."""
    if not isinstance(content, list):
        return content
    parts = []
    for index, part in enumerate(content):
        where = f"{item}.{name}[{index}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in TEXT_PARTS:
            parts.append({"type": "text", "text": part.get("text")})
        elif kind == "refusal":  # a part of an earlier answer
            parts.append({"type": "refusal", "refusal": part.get("refusal")})
        elif kind == "input_image":
            parts.append({"type": "image_url", "image_url": _image(part, where)} | _options(part))
        elif kind in (*MEDIA, *AUDIO):  # parts of chats, which name their own errors
            parts.append(part)
        else:
            raise RequestError(f"{where}: only text, image and video parts are supported", param=where)
    return parts


def _image(part: dict[str, Any], where: str) -> dict[str, Any]:
    url, detail = part.get("image_url"), part.get("detail")
    if not isinstance(url, str):
        raise RequestError(f"{where}: an input_image must have an image_url; files are not kept", param=where)
    _one_of(detail, DETAILS, f"{where}.detail")
    return {"url": url, "detail": detail}


def _options(part: dict[str, Any]) -> dict[str, Any]:
    return {name: part[name] for name in PART_OPTIONS["image"] if part.get(name) is not None}


def _tool(tool: Any, index: int) -> dict[str, Any]:
    tool = _object(tool, f"tools[{index}]")
    if tool.get("type") != "function":
        raise RequestError(f"tools[{index}].type must be function", param=f"tools[{index}].type")
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


def _one_of(value: Any, known: tuple[str, ...], param: str) -> None:
    """Raise RequestError unless the value is None or one of these texts."""
    if value is not None and value not in known:
        raise RequestError(f"{param} must be one of {', '.join(known)}", param=param)


def _object(value: Any, param: str) -> dict[str, Any]:
    return {} if value is None else as_object(value, param)


def _list(value: Any, param: str) -> list[Any]:
    return as_list(value, param, "a text or a list" if param == "input" else "a list")
