# SPDX-License-Identifier: Apache-2.0
"""Checks of client JSON, whose errors name the invalid position and never repeat long input."""

from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from common.errors import RequestError

# Far more than the JSON schema of a real tool needs, far less than recursion in templates and grammars can take.
MAX_DEPTH = 64

_T = TypeVar("_T")
_KIND_NAMES: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def shorten(text: str, limit: int = 60) -> str:
    """Client text for an error message: truncated, with control characters and surrogates escaped."""
    quoted = text if len(text) <= limit else text[:limit] + "..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in quoted)


class PositionError(RequestError):
    """An invalid value in client JSON. Its param is the request field, the first name in `where`.

    where: its position, such as "messages[2].content". problem: what is wrong, such as "must be a string".
    """

    def __init__(self, where: str, problem: str, given: str | None = None) -> None:
        """Create the error. given: what the value is instead, for the message; it may quote a few characters of it."""
        message = f"{where} {problem}" if given is None else f"{where} {problem}, not {given}"
        super().__init__(message, param=where.split(".", 1)[0].split("[", 1)[0])
        self.where = where
        self.problem = problem


def expect(value: Any, kind: type[_T], where: str) -> _T:
    """`value` if it is of JSON kind `kind`, else raise RequestError naming `where` and both kinds."""
    if type(value) is not kind:
        raise PositionError(where, f"must be {_KIND_NAMES[kind]}", _KIND_NAMES[type(value)])
    return value


def expect_one_of(value: Any, known: Collection[str], where: str) -> str:
    """`value` if it is one of the strings `known`, else raise RequestError listing them."""
    if isinstance(value, str) and value in known:
        return value
    quoted = f"'{shorten(value)}'" if isinstance(value, str) else _KIND_NAMES[type(value)]
    raise PositionError(where, f"must be one of {', '.join(sorted(known))}", quoted)


def check_tree(value: Any, where: str) -> None:
    """Raise RequestError if parsed JSON is nested too deeply or holds lone surrogates, which are not Unicode."""
    found = _find_problem(value, MAX_DEPTH)
    if found:
        path, problem = found
        raise PositionError(where + path, problem)


def _find_problem(value: Any, depth: int) -> tuple[str, str] | None:
    # The path is only built when returning from a problem, so that valid requests build no strings.
    if isinstance(value, str):
        return None if _is_unicode(value) else ("", "has a lone surrogate, which is not valid Unicode")
    if not isinstance(value, dict | list):
        return None
    if depth == 0:
        return "", f"is nested more than {MAX_DEPTH} levels deep"
    items: Iterable[tuple[str | int, Any]] = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(key, str) and not _is_unicode(key):
            return "", "has a key with a lone surrogate, which is not valid Unicode"
        found = _find_problem(item, depth - 1)
        if found:
            path, problem = found
            return (f".{shorten(key, 40)}" if isinstance(key, str) else f"[{key}]") + path, problem
    return None


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
