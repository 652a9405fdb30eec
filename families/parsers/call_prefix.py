# SPDX-License-Identifier: Apache-2.0
"""Decides from the first characters of a text whether it may consist of tool calls."""

import re
from collections.abc import Sequence

# Function names have at most 64 characters in the OpenAI API; a longer beginning is prose.
_LONGEST = 128

_PYTHON_LIST = re.compile(r"\[[^\W\d][\w.]*\(")
_PYTHON_LIST_BEGUN = re.compile(r"\[([^\W\d][\w.]*)?")
_PYTHON_CALL = re.compile(r"[^\W\d][\w.]*\(")
_PYTHON_CALL_BEGUN = re.compile(r"([^\W\d][\w.]*)?")

JSON_PREFIXES = tuple(
    f'{bracket}{{"{key}":' for bracket in ("", "[") for key in ("name", "arguments", "parameters", "type")
)


class CallPrefix:
    """Compares the first characters of a streamed text, without whitespace, with the beginnings of tool calls.

    json: the beginnings to accept, without whitespace.
    python_list, python_call: accept `[name(` and `name(` too.
    """

    def __init__(self, json: Sequence[str] = (), *, python_list: bool = False, python_call: bool = False) -> None:
        self._json = tuple(json)
        self._python = [(_PYTHON_LIST, _PYTHON_LIST_BEGUN)] * python_list + [
            (_PYTHON_CALL, _PYTHON_CALL_BEGUN)
        ] * python_call
        self._head = ""

    def feed(self, text: str) -> bool | None:
        """Whether the text may consist of calls; None while undecided."""
        missing = _LONGEST - len(self._head)
        self._head += "".join(text.split())[:missing]
        head = self._head
        if head.startswith(self._json) or any(whole.match(head) for whole, _ in self._python):
            return True
        if len(head) == _LONGEST:
            return False
        begun = any(prefix.startswith(head) for prefix in self._json)
        return None if begun or any(begins.fullmatch(head) for _, begins in self._python) else False
