# SPDX-License-Identifier: Apache-2.0
"""Values that made-up requests have: edges of ranges, odd texts, and what fields of some names may hold."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

JSON = "application/json"
INTS = (
    *(0, 1, -1, 2, 3, 7, 20, 21, 128, 129, 1023, 1024, 1025, 65535, 65536, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1),
    *(2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**30, 10**400),
)
FLOATS = (
    *(0.0, -0.0, 0.5, 1.0, 2.0, -2.0, 1e-5, 1e-45, 1e-50, 5e-324, 1.0000000001, 3.4e38, 3.5e38, 1.7e308),
    *(float("nan"), float("inf"), float("-inf"), 1e22, 0.1),
)
TEXTS = (
    *(
        "",
        " ",
        "x",
        "Hi",
        "\0",
        "a\0b",
        "\n",
        "\r\n",
        "\ud800",
        "\udfff\ud800",
        "\U0001f642",
        "e\u0301",
        "\u202e",
        "\ufeff",
    ),
    *("\uffff", "null", "true", "0", "-1", "1e999", "NaN", "[]", "{}", "__proto__", "../../etc/passwd", "%00", "%s%n"),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "{{ x }}"),
    *("{% for x in y %}", "'; DROP TABLE responses; --", "<script>", "\x1b[2J", "a" * 65, "a" * 1025, "a" * 5000),
    *("\u4e00" * 700, "word " * 400, "(" * 200, "a" * 70_000),
)
KEYS = ("type", "id", "name", "role", "content", "text", "", "\0", "\ud800", "__class__", "x" * 300, "$ref", "model")
PATTERNS = (
    *(
        "a+",
        "[a-z]{1,5}",
        "(a|b)*c",
        "(",
        ")",
        "[",
        "a{99999}",
        "(a+)+$",
        "\\d+",
        "\\",
        "(?=a)",
        "(?P<x>a)",
        "\\1",
        "^$",
    ),
    *("[^\\x00-\\x7f]", "a{,}", "*", "a**", "\\u{10ffff}", "(?i)a", "[z-a]", ".{0,2000}", "\\p{L}"),
)
_GRAMMARS = (
    *('root ::= "a"', 'root ::= root "a"', "root ::=", "", "root", 'root ::= "a', "root ::= [a-z]+", "x ::= y"),
    *('root ::= a\na ::= b\nb ::= "c"', "start: /a+/", '?start: "x" | "y"', "root ::= (", "root ::= [", "%"),
)
_TEMPLATES = (
    *(
        "{{ messages[0].content }}",
        "{% for m in messages %}{{ m.role }}{% endfor %}",
        "{{ 1/0 }}",
        "{% if %}",
        "{{ x.y.z }}",
    ),
    *("{{ raise_exception('no') }}", "{% for i in range(999999999) %}x{% endfor %}", "{{ ''.__class__.__mro__ }}", ""),
)


def _image(kind: str, size: tuple[int, int] = (8, 8)) -> str:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


_PICTURES = (_image("PNG"), _image("JPEG"), _image("GIF"), _image("WEBP", (1, 90)), _image("PNG", (1, 1)))
_URLS = (
    *(f"data:image/png;base64,{one}" for one in _PICTURES),
    *(
        "data:image/png;base64,AAAA",
        "data:image/png;base64,",
        "data:,",
        "data:",
        "data:text/plain,x",
        "data:;base64,==",
    ),
    *(
        "http://127.0.0.1:1/x.png",
        "http://[::1",
        "http://0/",
        "https://x.invalid/\r\n",
        "file:///etc/passwd",
        "file://x/y",
    ),
    *("ftp://x/y", "http://\u2488/", "http://127.0.0.1:99999/", "", " ", "\0", "http://user:pass@127.0.0.1:1/"),
    "data:image/png;base64," + _PICTURES[0][:40],
)
# What the document leaves open, by the field's name.
ITEMS: tuple[Any, ...] = (
    {"type": "message", "role": "user", "content": "Hi"},
    {"role": "assistant", "content": [{"type": "output_text", "text": "Yes", "annotations": []}]},
    {"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": _URLS[0]}]},
    {"role": "user", "content": [{"type": "input_file", "file_data": "x"}, {"type": "refusal", "refusal": "no"}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "1"},
    {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "1"}]},
    {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
    {"type": "reasoning", "summary": [], "encrypted_content": "AAAA"},
    {"type": "item_reference", "id": "msg_1"},
    {"id": "rs_1"},
    {"type": "web_search_call", "id": "x"},
)
TOOLS: tuple[Any, ...] = (
    {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True},
    {"type": "web_search"},
    {"type": "custom", "name": "x"},
)
HINTS: Mapping[str, Sequence[Any]] = {
    "url": _URLS,
    "data": _PICTURES,
    "image_url": _URLS,
    "role": (*(["user"] * 9), "assistant", "assistant", "system", "tool", "developer", "wizard"),
    "guided_regex": PATTERNS,
    "regex": PATTERNS,
    "pattern": PATTERNS,
    "guided_grammar": _GRAMMARS,
    "grammar": _GRAMMARS,
    "chat_template": _TEMPLATES,
    "arguments": ("{}", '{"a": 1}', "", "{", "[]", "null", '{"a": NaN}', '{"a": "\\ud800"}'),
    "encrypted_content": ("AAAA", "", "v1.AAAA", "!", "A" * 5000),
    "signature": ("AAAA", "", "v1.AAAA", "!", "A" * 5000),
    "logit_bias": ({"1": 1}, {"0": -100, "151935": 100}, {"9999999": 1}, {"x": 1}, {"-1": 1}, {"1": 1e39}, {"1.5": 2}),
    "max_tokens": (1, 2, 3, 8),
    "max_completion_tokens": (1, 2, 3, 8),
    "max_output_tokens": (1, 2, 3, 8),
    "n": (1, 1, 1, 2, 3, 128),
    "best_of": (1, 2),
    "previous_response_id": ("resp_1", "", "x" * 300),
    "lora_path": ("/nowhere", ".", "/etc", "\0", "x" * 5000),
    "tool_call_id": ("c",),
    "tool_use_id": ("c",),
}
HEADERS: Mapping[str, Sequence[str]] = {
    "X-Request-Timeout": ("5", "60", "0.001", "0", "-1", "nan", "inf", "1e9", "x", ""),
    "X-Request-Id": ("abc", "", "x" * 300, "a b", "\u00a0", "\u00ff", "a;b=c"),
    "X-Request-Metrics": ("true", "false", "2", ""),
    "traceparent": ("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-0-0-00", "x", "ff-" + "0" * 200),
    "Content-Type": (
        JSON,
        "text/plain",
        "application/json; charset=utf-16",
        "",
        "x",
        "multipart/form-data; boundary=x",
    ),
    "Content-Encoding": ("identity", "gzip", "x", ""),
    "Accept": ("*/*", "text/event-stream", "image/png", "x"),
    "Authorization": ("Bearer x", "Bearer ", "Basic eDp5", "x", "Bearer \u00e9"),
    "x-api-key": ("x", "", "\u00e9"),
    "Origin": ("http://x", "null", "x", ""),
    "anthropic-version": ("2023-06-01", "x"),
    "Range": ("bytes=0-1", "x"),
    "Expect": ("100-continue",),
    "Connection": ("close", "keep-alive"),
    "X-Forwarded-For": ("127.0.0.1", "x"),
}
QUERIES = (
    "limit=0",
    "limit=5",
    "limit=x",
    "order=asc",
    "order=up",
    "after=x",
    "model=x",
    "model=",
    "x=%ff",
    "&&==",
    "%00",
)
