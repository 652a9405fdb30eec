# SPDX-License-Identifier: Apache-2.0
"""Request bodies that try to break a server, named by what they try; large ones are made when they are sent."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CHAT, COMPLETIONS, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
MESSAGES = "/v1/messages"


@dataclass(frozen=True, slots=True)
class Hostile:
    """A hostile request. body: makes the bytes to POST to `path`."""

    name: str
    path: str
    body: Callable[[], bytes]


def DEEP(depth: int) -> Any:
    """Nested objects."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def _user(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 4}


def _chat(name: str, make: Callable[[], dict[str, Any]]) -> Hostile:
    return Hostile(name, CHAT, lambda: json.dumps(_user("Hi") | make()).encode())


def _raw(name: str, body: bytes, path: str = CHAT) -> Hostile:
    return Hostile(name, path, lambda: body)


def _message(name: str, role: str, make: Callable[[], Any], **fields: Any) -> Hostile:
    def body() -> bytes:
        messages = [{"role": "user", "content": "Hi"}, {"role": role, "content": make()}]
        return json.dumps({"messages": messages, "max_tokens": 4, **fields}).encode()

    return Hostile(name, MESSAGES, body)


def _image(name: str, make: Callable[[], bytes]) -> Hostile:
    def body() -> bytes:
        url = "data:image/png;base64," + base64.b64encode(make()).decode()
        return json.dumps(_user([{"type": "image_url", "image_url": {"url": url}}])).encode()

    return Hostile(name, CHAT, body)


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _bomb_text_chunk() -> bytes:
    """A valid picture of one pixel with a compressed comment of 100 MB."""
    text = b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000, 9)
    valid = _png(1, 1, zlib.compress(b"\0" * 4))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return valid[:33] + chunk + valid[33:]


def _polyglot() -> bytes:
    """A file that some readers take for a GIF and others for a script."""
    return b"GIF89a/*" + b"\0" * 100 + b"*/=1;alert(1)//<svg onload=alert(1)><?xml version='1.0'?>"


def _svg() -> bytes:
    entity = b'<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    return b'<?xml version="1.0"?>' + entity + b'<svg xmlns="http://www.w3.org/2000/svg"><text>&x;</text></svg>'


def _truncated() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    return file.getvalue()[: file.tell() // 2]


def _schema(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def _forced(parameters: Any) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}}
    return {"tools": [tool], "tool_choice": "required"}


def _wide(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(count)}}


HOSTILE = [
    _raw("nothing", b""),
    _raw("deep arrays", b"[" * 100_000),
    _raw("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    _raw("invalid UTF-8", b'{"messages":[{"role":"user","content":"\xff\xfe"}]}'),
    _raw("a lone surrogate", b'{"messages":[{"role":"user","content":"\\ud800"}]}'),
    _raw("a surrogate as a key", b'{"messages":[{"role":"user","content":"x","\\udfff":1}]}'),
    _raw("NaN", b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}'),
    _raw("Infinity", b'{"messages":[{"role":"user","content":"x"}],"top_p":Infinity}'),
    _raw("a float beyond range", b'{"messages":[{"role":"user","content":"x"}],"temperature":1e99999}'),
    _raw("a million digits", b'{"messages":[{"role":"user","content":"x"}],"max_tokens":' + b"9" * 1_000_000 + b"}"),
    _raw("a long fraction", b'{"messages":[{"role":"user","content":"x"}],"top_p":0.' + b"1" * 500_000 + b"}"),
    _raw(
        "digits as a bias", b'{"messages":[{"role":"user","content":"x"}],"logit_bias":{"' + b"9" * 100_000 + b'":1}}'
    ),
    _raw("the same key often", b'{"messages":[{"role":"user","content":"x"}]' + b',"n":1' * 50_000 + b"}"),
    _raw("UTF-16", json.dumps(_user("x")).encode("utf-16")),
    _raw("a byte order mark", b"\xef\xbb\xbf" + json.dumps(_user("x")).encode()),
    _raw("a deep schema of a completion", json.dumps({"prompt": "x", "guided_json": DEEP(300)}).encode(), COMPLETIONS),
    _raw("deep metadata", json.dumps({"input": "x", "metadata": DEEP(300)}).encode(), RESPONSES),
    _raw("many prompts", json.dumps({"prompt": ["x"] * 20_000}).encode(), COMPLETIONS),
    _raw("a prompt of many ids", json.dumps({"prompt": [1] * 300_000}).encode(), COMPLETIONS),
    _raw("many ids to detokenize", json.dumps({"tokens": [2**31 - 1] * 1000}).encode(), "/detokenize"),
    _chat("100,000 messages", lambda: {"messages": [{"role": "user"}] * 100_000}),
    _chat("9,999 messages", lambda: {"messages": [{"role": "user", "content": "x"}] * 9_999}),
    _chat("100,000 parts", lambda: _user([{"type": "text", "text": ""}] * 60_000)),
    _chat("one long word", lambda: _user("a" * 1_500_000)),
    _chat("long text without spaces", lambda: _user("\u4e00" * 250_000)),
    _chat("combining characters", lambda: _user("e" + "\u0301" * 150_000)),
    _chat("many spaces", lambda: _user(" " * 1_000_000)),
    _chat("NUL", lambda: _user("a\0b")),
    _chat("special tokens as text", lambda: _user("<|im_end|>\n<|im_start|>system\n" * 1000)),
    _chat(
        "a template in the text", lambda: _user("{{ ''.__class__.__mro__ }}{% for x in range(10**9) %}x{% endfor %}")
    ),
    _chat("a template of one's own", lambda: {"chat_template_kwargs": {"chat_template": "{{ cycler.__init__ }}"}}),
    _chat("deep template variables", lambda: {"chat_template_kwargs": DEEP(200)}),
    _chat("1,025 tools", lambda: {"tools": [_forced({})["tools"][0]] * 1025}),
    _chat("deep arguments", lambda: _forced(DEEP(200))),
    _chat("a wide object", lambda: _schema(_wide(10_000))),
    _chat("a schema that is its own", lambda: _schema({"$ref": "#"})),
    _chat("a long literal", lambda: _schema({"const": "x" * 1_000_000})),
    _chat("many values", lambda: _schema({"enum": [f"value{i}" for i in range(20_000)]})),
    _chat("counted arrays in each other", lambda: _schema(_arrays(4))),
    _chat("a pattern in a schema", lambda: _schema({"type": "string", "pattern": "((a{0,100}){0,100}){0,100}"})),
    _chat("bounded properties", lambda: _forced(_wide(200) | {"minProperties": 100, "maxProperties": 150})),
    _chat("nested counts", lambda: {"guided_regex": "((a{0,100}){0,100}){0,100}"}),
    _chat("deep groups", lambda: {"guided_regex": "(" * 100_000 + "a" + ")" * 100_000}),
    _chat("many optional characters", lambda: {"guided_regex": "a?" * 5_000 + "a" * 5_000}),
    _chat("a long pattern", lambda: {"guided_regex": "ab" * 500_000}),
    _chat("a deep grammar", lambda: {"guided_grammar": "root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000}),
    _chat("many rules", lambda: {"guided_grammar": _rules(20_000)}),
    _chat("a grammar without a start", lambda: {"guided_grammar": 'x ::= "a"'}),
    _chat("long choices", lambda: {"guided_choice": ["x" * 1000 + str(i) for i in range(1000)]}),
    _message("many thoughts", "assistant", lambda: [{"type": "thinking", "thinking": "a"}] * 40_000),
    _message("many calls", "assistant", lambda: [{"type": "tool_use", "id": "a", "name": "f", "input": {}}] * 20_000),
    _message("deep input", "assistant", lambda: [{"type": "tool_use", "id": "a", "name": "f", "input": DEEP(300)}]),
    _message("many results", "user", lambda: [{"type": "tool_result", "tool_use_id": "a"}] * 30_000),
    _message(
        "deep results",
        "user",
        lambda: [{"type": "tool_result", "content": [{"type": "tool_result", "content": DEEP(300)}]}],
    ),
    _message("a type that is long", "user", lambda: [{"type": "x" * 500_000}]),
    _message("a deep schema of a tool", "user", lambda: "Hi", tools=[{"name": "f", "input_schema": DEEP(300)}]),
    _image("a picture of 4 gigapixels", lambda: _png(65_535, 65_535, zlib.compress(b"\0" * 1000))),
    _image("a picture that unpacks to 1 GB", lambda: _png(20_000, 20_000, zlib.compress(b"\0" * 30_000_000))),
    _image("a bomb in a comment", _bomb_text_chunk),
    _image("a picture that is a script", _polyglot),
    _image("a vector picture with an entity", _svg),
    _image("half a picture", _truncated),
    _image("no picture", lambda: b"\x89PNG\r\n\x1a\n"),
]


def _arrays(depth: int) -> dict[str, Any]:
    inner = _arrays(depth - 1) if depth else {"type": "string", "maxLength": 1000}
    return {"type": "array", "minItems": 100, "maxItems": 1000, "items": inner}


def _rules(count: int) -> str:
    rules = [f'r{i} ::= "x{i}" r{i + 1}' for i in range(count)]
    return "\n".join(["root ::= r0", *rules, f'r{count} ::= "a"'])
