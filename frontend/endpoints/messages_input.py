# SPDX-License-Identifier: Apache-2.0
"""Bodies of `/v1/messages`, converted to equivalent chat bodies.

Only what changes the prompt or the answer is read of a block. So marks such as `cache_control` leave the prompt as it
is, and the prefix cache of the engine finds a conversation's earlier turns again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from common.errors import RequestError
from frontend.endpoints.own_names import OwnNames
from frontend.protocol.common import as_list, as_object
from frontend.protocol.refused import REFUSED_IN_MESSAGES, refuse

# Fields that a chat takes unchanged: those that both APIs have, and this server's own.
SAME = (
    *("model", "stream", "max_tokens", "temperature", "top_p", "top_k"),
    *("min_p", "seed", "logit_bias", "priority", "min_tokens", "ignore_eos", "bad_words"),
    *("allowed_token_ids", "cache_salt", "add_special_tokens", "documents", "verbosity"),
    *("presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("enable_thinking", "chat_template_kwargs", "mm_processor_kwargs", "media_io_kwargs"),
)
# Fields that are converted.
CONVERTED = (
    *("messages", "system", "stop_sequences", "tools", "tool_choice", "thinking", "output_config"),
    "context_management",
)
# Field of a chat -> the field that sets it, under which errors name it.
RENAMED = {
    # Errors then name the place in it.
    "messages": "messages",
    "stop": "stop_sequences",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
    "reasoning_effort": "output_config.effort",
    "thinking_token_budget": "thinking.budget_tokens",  # nosec B105 # a field's name
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "tool_choice.function": "tool_choice",
}
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
THINKING = ("enabled", "disabled", "adaptive")
DISPLAYS = ("summarized", "omitted")
IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
# The kinds of blocks of each role, and of a tool's result.
BLOCKS = {
    "system": ("text",),
    "user": ("text", "image", "document", "search_result", "tool_result"),
    "assistant": ("text", "thinking", "redacted_thinking", "tool_use"),
}
RESULT_BLOCKS = ("text", "image", "document", "search_result", "tool_reference")

# Claude Code writes a line for its own accounting, which differs from request to request, before the system prompt.
_BILLING = "x-anthropic-billing-header:"

Part = dict[str, Any]


def chat_body(raw: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], OwnNames]]:
    """Convert a body; it is then checked as a chat body. Raises RequestError naming a field that is not supported.

    The second value makes the names of the body's parts for an error. A body may have thousands, so not at once.
    """
    refuse(raw, REFUSED_IN_MESSAGES)
    _check_context_management(raw.get("context_management"))
    body = {name: raw[name] for name in SAME if raw.get(name) is not None}
    turns = _Turns()
    turns.add_system(raw.get("system"), "system")
    for index, message in enumerate(as_list(raw.get("messages"), "messages")):
        turns.add(as_object(message, f"messages[{index}]"), f"messages[{index}]")
    body["messages"] = turns.finished()
    if turns.end_is_open():
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    if raw.get("stop_sequences") is not None:
        body["stop"] = as_list(raw["stop_sequences"], "stop_sequences")
    if raw.get("tools") not in (None, []):
        body["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in enumerate(as_list(raw["tools"], "tools"))]
    body |= _tool_choice(raw) | _thinking(raw) | _output_config(raw)
    # Blocks of thinking are the form of this API, whatever the server's own setting is.
    body["separate_reasoning"] = True
    # The names are kept for longer than the body.
    turns.messages = []
    return body, partial(_own_names, len(raw.get("tools") or ()), turns)


def thinking_is_shown(raw: dict[str, Any]) -> bool:
    """Whether blocks of thinking have their text; `thinking.display` can leave it out."""
    return (raw.get("thinking") or {}).get("display") != "omitted"


def _own_names(tool_count: int, turns: "_Turns") -> OwnNames:
    tools = range(tool_count)
    names = {f"tools[{index}].function": f"tools[{index}]" for index in tools}
    names |= {f"tools[{index}].function.parameters": f"tools[{index}].input_schema" for index in tools}
    return OwnNames(RENAMED | names | turns.names())


@dataclass(slots=True)
class _Origin:
    """The places in the client's body of what one message of the chat is made of.

    parts: of its content's parts. calls: of its tool calls. reasoning: of its first reasoning. thoughts: all reasoning.
    """

    place: str
    content: str
    parts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    reasoning: str | None = None
    thoughts: list[str] = field(default_factory=list)


class _Turns:
    """The messages of a chat, and where they come from."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._origins: list[_Origin] = []

    def add_system(self, content: Any, place: str) -> None:
        """Add the system prompt, a text or blocks of text, without what a client writes there for its accounting."""
        where = place if place == "system" else f"{place}.content"
        kept: list[tuple[Part, str]] = []
        for part, at in [] if content is None else _parts(content, where, BLOCKS["system"]):
            text = part["text"]
            if text.startswith(_BILLING):
                text = text.partition("\n")[2]
            if text:
                kept.append(({"type": "text", "text": text}, at))
        if kept:
            self._extend(self._begin("system", place, where), kept)

    def add(self, message: dict[str, Any], place: str) -> None:
        """Add a message of the client; it may become several of a chat, or none if it is empty."""
        role, content, where = message.get("role"), message.get("content"), f"{place}.content"
        if role == "system":
            for name in ("clear_at", "output_config"):
                if message.get(name) not in (None, "never", {}):
                    raise RequestError(f"{place}.{name} is not supported", param=f"{place}.{name}")
            self.add_system(content, place)
        elif role == "user":
            self._add_user(content, place, where)
        elif role == "assistant":
            self._add_assistant(content, place, where)
        else:
            raise RequestError(f"{place}.role must be one of {', '.join(BLOCKS)}", param=f"{place}.role")

    def finished(self) -> list[dict[str, Any]]:
        """Return the messages once all are added."""
        for message, origin in zip(self.messages, self._origins, strict=True):
            # Joined once: a body may have many thousand.
            if thoughts := [thought for thought in origin.thoughts if thought]:
                message["reasoning_content"] = "\n\n".join(thoughts)
            origin.thoughts = []
        return self.messages

    def end_is_open(self) -> bool:
        """Whether the last message is the beginning of the answer, which the model continues."""
        last = self.messages[-1] if self.messages else {}
        return last.get("role") == "assistant" and "tool_calls" not in last and bool(last["content"])

    def names(self) -> dict[str, str]:
        """Positions in the messages of the chat -> the same in the body."""
        names: dict[str, str] = {}
        for index, origin in enumerate(self._origins):
            at = f"messages[{index}]"
            names |= {at: origin.place, f"{at}.content": origin.content}
            for number, place in enumerate(origin.parts):
                part = f"{at}.content[{number}]"
                names |= {part: place, f"{part}.image_url": f"{place}.source"}
            for number, place in enumerate(origin.calls):
                call = f"{at}.tool_calls[{number}]"
                names |= {call: place, f"{call}.function": place, f"{call}.function.arguments": f"{place}.input"}
                names.setdefault(f"{at}.tool_calls", place)
            names[f"{at}.tool_call_id"] = f"{origin.place}.tool_use_id"
            if origin.reasoning is not None:
                names[f"{at}.reasoning_content"] = origin.reasoning
        return names

    def _add_user(self, content: Any, place: str, where: str) -> None:
        """Add the results of tools, which answer the calls before them, and then the user's own words."""
        own: list[tuple[Part, str]] = []
        for block, at in _blocks(content, where, BLOCKS["user"]):
            if block["type"] != "tool_result":
                own += ((part, at) for part in _content_parts(block, at))
                continue
            result = f"{at}.content"
            parts = _parts(block.get("content") or [], result, RESULT_BLOCKS)
            if _flag(block, "is_error", at):
                # No chat template has a place for it.
                parts = [({"type": "text", "text": "Error:"}, at), *parts]
            self._extend(self._begin("tool", at, result, tool_call_id=block.get("tool_use_id")), parts)
        if own:
            # As in Anthropic's API, successive messages of the user are one turn.
            continued = bool(self.messages) and self.messages[-1]["role"] == "user"
            self._extend(self._origins[-1] if continued else self._begin("user", place, where), own)

    def _add_assistant(self, content: Any, place: str, where: str) -> None:
        blocks = _blocks(content, where, BLOCKS["assistant"])
        # Only the service that encrypted it can read redacted thinking.
        blocks = [(block, at) for block, at in blocks if block["type"] != "redacted_thinking"]
        if not blocks:
            return
        continued = bool(self.messages) and self.messages[-1]["role"] == "assistant"
        origin = self._origins[-1] if continued else self._begin("assistant", place, where)
        message = self.messages[-1]
        for block, at in blocks:
            if block["type"] == "text":
                self._extend(origin, [(part, at) for part in _content_parts(block, at)])
            elif block["type"] == "tool_use":
                function = {"name": block.get("name"), "arguments": as_object(block.get("input") or {}, f"{at}.input")}
                call = {"id": block.get("id"), "type": "function", "function": function}
                message.setdefault("tool_calls", []).append(call)
                origin.calls.append(at)
            else:
                # Any signature is accepted. Omitted thinking comes back empty.
                origin.thoughts.append(_text(block, "thinking", at))
                origin.reasoning = origin.reasoning or f"{at}.thinking"

    def _begin(self, role: str, place: str, content: str, **fields: Any) -> _Origin:
        self.messages.append({"role": role, "content": [], **fields})
        self._origins.append(_Origin(place, content))
        return self._origins[-1]

    def _extend(self, origin: _Origin, parts: list[tuple[Part, str]]) -> None:
        """Add parts to the content of the last message. origin: its own."""
        self.messages[-1]["content"] += [part for part, _ in parts]
        origin.parts += [at for _, at in parts]


def _blocks(content: Any, where: str, kinds: tuple[str, ...]) -> list[tuple[dict[str, Any], str]]:
    """Return the blocks of a content, a text being one of them, with their places. kinds: those that it may have."""
    if isinstance(content, str):
        return [({"type": "text", "text": content}, where)] if content else []
    if not isinstance(content, list):
        raise RequestError(f"{where} must be a text or a list of blocks", param=where)
    blocks = []
    for index, block in enumerate(content):
        at = f"{where}[{index}]"
        kind = as_object(block, at).get("type")
        if kind not in kinds:
            named = f"'{kind}' is not supported" if isinstance(kind, str) and len(kind) < 64 else "is not supported"
            raise RequestError(f"{at}.type {named}; supported here: {', '.join(kinds)}", param=f"{at}.type")
        blocks.append((block, at))
    return blocks


def _parts(content: Any, where: str, kinds: tuple[str, ...]) -> list[tuple[Part, str]]:
    """Return the parts of a chat that a content becomes, each with the place of its block."""
    return [(part, at) for block, at in _blocks(content, where, kinds) for part in _content_parts(block, at)]


def _content_parts(block: dict[str, Any], where: str) -> list[Part]:
    """Return the parts of a chat that one block becomes."""
    kind = block["type"]
    if kind == "image":
        return [_image(block, where)]
    if kind == "document":
        return _document(block, where)
    if kind == "search_result":
        _refuse_citations(block, where)
        texts = [part["text"] for part, _ in _parts(block.get("content"), f"{where}.content", ("text",))]
        return [_text_part(_text(block, "title", where), _text(block, "source", where), *texts)]
    # A reference names a tool whose definition is in the prompt already: tools are never loaded later here.
    return [{"type": "text", "text": _text(block, "tool_name" if kind == "tool_reference" else "text", where)}]


def _document(block: dict[str, Any], where: str) -> list[Part]:
    _refuse_citations(block, where)
    about = [_text(block, name, where) for name in ("title", "context") if block.get(name) is not None]
    source, at = as_object(block.get("source"), f"{where}.source"), f"{where}.source"
    if source.get("type") == "text":
        return [_text_part(*about, _text(source, "data", at))]
    if source.get("type") == "content":
        parts = [part for part, _ in _parts(source.get("content"), f"{at}.content", ("text", "image"))]
        return [*([_text_part(*about)] if about else []), *parts]
    raise RequestError(f"{at}.type must be text or content: files such as PDF are not read", param=f"{at}.type")


def _image(block: dict[str, Any], where: str) -> Part:
    transformations = as_object(block.get("transformations") or {}, f"{where}.transformations")
    if transformations.get("oversized_image") not in (None, "downsize"):
        at = f"{where}.transformations.oversized_image"
        raise RequestError(f"{at} can only be downsize", param=at)
    source, at = as_object(block.get("source"), f"{where}.source"), f"{where}.source"
    if source.get("type") == "url":
        return {"type": "image_url", "image_url": {"url": _text(source, "url", at)}}
    if source.get("type") != "base64":
        raise RequestError(f"{at}.type must be base64 or url: no files are kept", param=f"{at}.type")
    media_type = source.get("media_type")
    if media_type not in IMAGE_TYPES:
        raise RequestError(f"{at}.media_type must be one of {', '.join(IMAGE_TYPES)}", param=f"{at}.media_type")
    return {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{_text(source, 'data', at)}"}}


def _text_part(*texts: str) -> Part:
    return {"type": "text", "text": "\n".join(texts)}


def _refuse_citations(block: dict[str, Any], where: str) -> None:
    if as_object(block.get("citations") or {}, f"{where}.citations").get("enabled"):
        raise RequestError(f"{where}.citations are not supported", param=f"{where}.citations")


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = as_object(tool, where)
    if tool.get("type") not in (None, "custom"):
        raise RequestError(
            f"{where}.type must be custom: no tools are run here, and the model knows none of Anthropic's own",
            param=f"{where}.type",
        )
    if tool.get("allowed_callers") not in (None, ["direct"]):
        raise RequestError(f"{where}.allowed_callers can only be direct", param=f"{where}.allowed_callers")
    schema = as_object(tool.get("input_schema"), f"{where}.input_schema")
    if tool.get("input_examples"):
        schema = schema | {"examples": as_list(tool["input_examples"], f"{where}.input_examples")}
    function = {name: tool[name] for name in ("name", "description", "strict") if tool.get(name) is not None}
    return {"type": "function", "function": function | {"parameters": schema}}


def _tool_choice(raw: dict[str, Any]) -> dict[str, Any]:
    if raw.get("tool_choice") is None:
        return {}
    choice = as_object(raw["tool_choice"], "tool_choice")
    fields = {"parallel_tool_calls": False} if _flag(choice, "disable_parallel_tool_use", "tool_choice") else {}
    kind = choice.get("type")
    if kind == "tool":
        return fields | {
            "tool_choice": {"type": "function", "function": {"name": _text(choice, "name", "tool_choice")}}
        }
    if not isinstance(kind, str) or kind not in CHOICES:
        raise RequestError(f"tool_choice.type must be one of {', '.join([*CHOICES, 'tool'])}", param="tool_choice.type")
    return fields | {"tool_choice": CHOICES[kind]}


def _thinking(raw: dict[str, Any]) -> dict[str, Any]:
    if raw.get("thinking") is None:
        return {}
    thinking = as_object(raw["thinking"], "thinking")
    if thinking.get("type") not in THINKING:
        raise RequestError(f"thinking.type must be one of {', '.join(THINKING)}", param="thinking.type")
    if thinking.get("display") not in (None, *DISPLAYS):
        raise RequestError(f"thinking.display must be one of {', '.join(DISPLAYS)}", param="thinking.display")
    fields: dict[str, Any] = {"thinking": {"type": thinking["type"]}}
    budget, length = thinking.get("budget_tokens"), raw.get("max_tokens")
    # A budget is required here. One that leaves nothing to cut is no limit, which every engine and model can keep.
    if budget is not None and not (isinstance(budget, int) and isinstance(length, int) and budget >= length - 1):
        fields["thinking_token_budget"] = budget
    return fields


def _output_config(raw: dict[str, Any]) -> dict[str, Any]:
    config = as_object(raw.get("output_config") or {}, "output_config")
    if config.get("task_budget") is not None:
        raise RequestError("output_config.task_budget is not supported", param="output_config.task_budget")
    fields: dict[str, Any] = {}
    if config.get("effort") is not None:
        fields["reasoning_effort"] = _text(config, "effort", "output_config")
    if config.get("format") is not None:
        wanted = as_object(config["format"], "output_config.format")
        if wanted.get("type") != "json_schema":
            raise RequestError("output_config.format.type must be json_schema", param="output_config.format.type")
        schema = as_object(wanted.get("schema"), "output_config.format.schema")
        fields["response_format"] = {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}
    return fields


def _check_context_management(given: Any) -> None:
    """Refuse edits of the conversation, but for one that keeps all."""
    edits = as_list(as_object(given or {}, "context_management").get("edits") or [], "context_management.edits")
    for index, edit in enumerate(edits):
        at = f"context_management.edits[{index}]"
        edit = as_object(edit, at)
        keep = edit.get("keep")
        if edit.get("type") != "clear_thinking_20251015" or keep not in ("all", {"type": "all"}):
            raise RequestError(f"{at} is not supported: edit the messages before you send them", param=at)


def _flag(value: dict[str, Any], name: str, where: str) -> bool:
    flag = value.get(name)
    if not isinstance(flag, bool | None):
        raise RequestError(f"{where}.{name} must be true or false", param=f"{where}.{name}")
    return bool(flag)


def _text(value: dict[str, Any], name: str, where: str) -> str:
    text = value.get(name)
    if not isinstance(text, str):
        raise RequestError(f"{where}.{name} must be a text", param=f"{where}.{name}")
    return text
