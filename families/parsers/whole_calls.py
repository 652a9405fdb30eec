# SPDX-License-Identifier: Apache-2.0
"""Readers of complete texts that consist of tool calls only, in JSON or Python notation."""

import ast
import json
import warnings
from typing import Any

from families.parsers.call_reader import CallReader, Status
from families.parsers.events import ToolCall
from families.parsers.json_text import is_object, is_text
from families.parsers.whole_arguments import or_nothing

_CONSTANTS = {"true": True, "false": False, "null": None}


def read_json_calls(text: str) -> list[ToolCall] | None:
    """The calls of `{"name": ..., "arguments": {...}}` objects: one, several separated by `;`, or an array of them.

    None if the text is anything else, such as an object with further keys. Arguments must be a JSON object; their text
    is kept unchanged.
    """
    text = text.strip()
    separator = ";"
    if text.startswith("[") and text.endswith("]"):
        text, separator = text[1:-1].strip(), ","
    calls = []
    position = 0
    while True:
        reader = CallReader(strict=True)
        position = reader.feed(text, position)
        arguments = or_nothing(reader.take())
        if reader.status is not Status.DONE or not is_object(arguments):
            return None
        calls.append(ToolCall(reader.name, arguments))
        while position < len(text) and text[position].isspace():
            position += 1
        if position == len(text):
            return calls
        if text[position] != separator:
            return None
        position += 1


def read_python_calls(text: str) -> list[ToolCall] | None:
    """The calls of `[name(key=value, ...), ...]`, or without the brackets of one call per line.

    None if the text is anything else: an empty list, positional arguments, values without a JSON form.
    Besides Python's literals, `true`, `false` and `null` are accepted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated escapes
            statements = ast.parse(text.strip()).body
        nodes: list[ast.expr] = []
        for statement in statements:
            if not isinstance(statement, ast.Expr):
                return None
            nodes += statement.value.elts if isinstance(statement.value, ast.List) else [statement.value]
        return [_python_call(node) for node in nodes] or None
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return None


def _python_call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keyword arguments")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("** is not supported")
        arguments[keyword.arg] = _value(keyword.value)
    encoded = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    if not is_text(encoded):
        raise ValueError("cannot be encoded as UTF-8")
    return ToolCall(_name(node.func), encoded)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    if isinstance(node, ast.Name):
        return node.id
    raise ValueError("not a function's name")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _value(value) for key, value in zip(node.keys, node.values, strict=True)}
    value = ast.literal_eval(node)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{type(value).__name__} is not JSON")


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise ValueError("a JSON key is a string")
