# SPDX-License-Identifier: Apache-2.0
"""Chats and tokenizers of the stylers' tests."""

import copy
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from common.chat.request import ChatRequest
from common.checkpoint import Checkpoint
from common.tokenizer import ChatTokenizer

HELLO = [{"role": "user", "content": "你好，你是谁？"}]


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "某工具", "parameters": parameters}}


WEATHER = tool("get_current_weather", location={"type": "string"}, unit={"enum": ["celsius", "fahrenheit"]})
POSTCODE = tool("get_postcode", location={"type": "string"})


def call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def dialogue(arguments_of: Any) -> list[dict[str, Any]]:
    """The second round of asking for a postcode and the weather at once."""
    calls = [
        call("c1", "get_postcode", arguments_of({"location": "Boston"})),
        call("c2", "get_current_weather", arguments_of({"location": "Boston, MA", "unit": "fahrenheit"})),
    ]
    return [
        {"role": "user", "content": "What's the postcode of Boston and what's the weather like in Boston today?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "02138", "tool_call_id": "c1"},
        {"role": "tool", "content": "59.0", "tool_call_id": "c2"},
    ]


def chat(messages: Any, **fields: Any) -> ChatRequest:
    return ChatRequest.parse(json.dumps({"messages": messages, **fields}))


def with_template(tokenizer: ChatTokenizer, template: str | None) -> ChatTokenizer:
    changed = copy.copy(tokenizer._tokenizer)
    changed.chat_template = template
    return ChatTokenizer(changed)


def tiny(*special: str, template: str | None = None, bos: str | None = None) -> ChatTokenizer:
    """A tokenizer with special tokens only."""
    backend = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    backend.add_special_tokens([*special, *([bos] if bos else [])])
    if bos:
        backend.post_processor = TemplateProcessing(
            single=f"{bos} $0", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos)
    fast.chat_template = template
    return ChatTokenizer(fast)


def checkpoint(model_type: str, *architectures: str, path: Path = Path()) -> Checkpoint:
    return Checkpoint(path, model_type, architectures, 1000, 4096, (1,), 0)
