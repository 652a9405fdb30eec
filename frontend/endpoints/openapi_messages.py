# SPDX-License-Identifier: Apache-2.0
"""JSON schemas of `/v1/messages`: its bodies, its answers and its errors, for the OpenAPI document."""

from typing import Any

from frontend.endpoints.messages_input import (
    BLOCKS,
    CHOICES,
    DISPLAYS,
    IMAGE_TYPES,
    RESULT_BLOCKS,
    SAME,
    THINKING,
)
from frontend.endpoints.openapi_answers import COUNT, TEXT, Schema, ref
from frontend.errors import MAX_MESSAGE, MESSAGE_ERRORS
from frontend.protocol.chat import MAX_MESSAGES, MAX_TOOLS

STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded")


def bodies(chat: Schema) -> Schema:
    """Return the schemas of the bodies. chat: the properties of a chat's body, some of which are the same here."""
    effort = [one for one in chat["reasoning_effort"]["anyOf"] if "enum" in one]
    prompt = {
        **{name: chat[name] for name in SAME if name not in ("max_tokens", "stream")},
        "messages": _list(ref("InputMessage"), minItems=1, maxItems=MAX_MESSAGES),
        "system": _or_null(_content("system")),
        "tools": _or_null(_list(ref("MessageTool"), maxItems=MAX_TOOLS)),
        "tool_choice": _or_null(
            _object(
                {"type": {"enum": [*CHOICES, "tool"]}},
                {"name": TEXT, "disable_parallel_tool_use": _or_null({"type": "boolean"})},
            )
        ),
        "thinking": _or_null(
            _object(
                {"type": {"enum": list(THINKING)}},
                {"budget_tokens": chat["thinking_token_budget"], "display": _or_null({"enum": list(DISPLAYS)})},
            )
        ),
        "output_config": _or_null(
            _object(
                {},
                {
                    "effort": _or_null(*effort),
                    "format": _or_null(_object({"type": {"const": "json_schema"}, "schema": {"type": "object"}})),
                },
            )
        ),
    }
    return {
        "MessageBody": _object(
            {"max_tokens": {"type": "integer", "minimum": 1}, "messages": prompt.pop("messages")},
            prompt | {"stream": chat["stream"], "stop_sequences": _or_null(_list(TEXT, maxItems=16))},
        ),
        "CountTokensBody": _object({"messages": _list(ref("InputMessage"), minItems=1, maxItems=MAX_MESSAGES)}, prompt),
        **_PARTS,
    }


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _list(items: Schema, **limits: int) -> Schema:
    return {"type": "array", "items": items, **limits}


def _or_null(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas, {"type": "null"}]}


def _block(kind: str, required: Schema, optional: Schema | None = None) -> Schema:
    return _object({"type": {"const": kind}, **required}, optional)


def _content(role: str) -> Schema:
    return {"anyOf": [TEXT, _list(_any_of(BLOCKS[role]))]}


def _any_of(kinds: tuple[str, ...]) -> Schema:
    return {"anyOf": [_BLOCKS[kind] for kind in kinds]}


_IMAGE = _block(
    "image",
    {
        "source": {
            "anyOf": [
                _object({"type": {"const": "base64"}, "media_type": {"enum": list(IMAGE_TYPES)}, "data": TEXT}),
                _object({"type": {"const": "url"}, "url": TEXT}),
            ]
        }
    },
)
_BLOCKS: dict[str, Any] = {
    "text": _block("text", {"text": TEXT}),
    "image": _IMAGE,
    "document": _block(
        "document",
        {
            "source": {
                "anyOf": [
                    _object({"type": {"const": "text"}, "data": TEXT}),
                    _object({"type": {"const": "content"}, "content": TEXT}),
                ]
            }
        },
        {"title": _or_null(TEXT), "context": _or_null(TEXT)},
    ),
    "search_result": _block(
        "search_result", {"title": TEXT, "source": TEXT, "content": _list(_block("text", {"text": TEXT}))}
    ),
    "tool_reference": _block("tool_reference", {"tool_name": TEXT}),
    "tool_use": _block("tool_use", {"id": TEXT, "name": TEXT, "input": {"type": "object"}}),
    "thinking": _block("thinking", {"thinking": TEXT}, {"signature": TEXT}),
    "redacted_thinking": _block("redacted_thinking", {"data": TEXT}),
}
_BLOCKS["tool_result"] = _block(
    "tool_result",
    {"tool_use_id": TEXT},
    {"content": {"anyOf": [TEXT, _list(_any_of(RESULT_BLOCKS))]}, "is_error": _or_null({"type": "boolean"})},
)
_PARTS: Schema = {
    "InputMessage": {
        "anyOf": [
            _object({"role": {"const": role}, "content": _content(role)}) for role in ("user", "assistant", "system")
        ]
    },
    "MessageTool": _object(
        {"name": TEXT, "input_schema": {"type": "object"}},
        {
            "type": _or_null({"const": "custom"}),
            "description": _or_null(TEXT),
            "strict": _or_null({"type": "boolean"}),
            "input_examples": _or_null(_list({"type": "object"})),
        },
    ),
}

ANSWERS: Schema = {
    "AnswerMessage": _object(
        {
            "id": TEXT,
            "type": {"const": "message"},
            "role": {"const": "assistant"},
            "model": TEXT,
            "content": _list(
                {
                    "anyOf": [
                        _block("thinking", {"thinking": TEXT, "signature": TEXT}),
                        _block("text", {"text": TEXT}),
                        _block("tool_use", {"id": TEXT, "name": TEXT, "input": {"type": "object"}}),
                    ]
                }
            ),
            "stop_reason": {"enum": list(STOP_REASONS)},
            "stop_sequence": _or_null(TEXT),
            "usage": _object(
                {
                    "input_tokens": COUNT,
                    "cache_creation_input_tokens": COUNT,
                    "cache_read_input_tokens": COUNT,
                    "output_tokens": COUNT,
                },
                {"output_tokens_details": _object({"thinking_tokens": COUNT})},
            ),
        }
    ),
    "TokenCount": _object({"input_tokens": COUNT}),
    "MessageError": _object(
        {
            "type": {"const": "error"},
            "error": _object(
                {
                    "type": {"enum": ["invalid_request_error", *dict.fromkeys(MESSAGE_ERRORS.values())]},
                    "message": {"type": "string", "maxLength": MAX_MESSAGE},
                }
            ),
            "request_id": _or_null(TEXT),
        }
    ),
}
