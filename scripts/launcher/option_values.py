# SPDX-License-Identifier: Apache-2.0
"""The values that an option takes, by the annotation of its field in an engine's source."""

import ast
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common.command_line import did_you_mean

# What a name of the source allows: kinds of values, and constants.
Named = Callable[[str], Iterator["str | ast.Constant"]]

# Any kind of value: the annotation does not say more.
ANY = "any"
_BUILTINS: Mapping[str, tuple[str, ...]] = {
    **{"bool": ("bool",), "int": ("int",), "float": ("float", "int"), "str": ("str",), "None": ()},
    **{"dict": ("dict",), "list": ("list",), "set": ("list",), "tuple": ("list",)},
}
_KIND = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict"}
_WORDS = {
    "bool": "true or false",
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "list": 'a list such as \'["a", "b"]\'',
    "dict": "a JSON object such as '{\"key\": 1}'",
}
# Keyword arguments of pydantic's Field -> in words, and whether a number is within the limit.
_LIMITS = {
    "gt": ("above", lambda number, limit: number > limit),
    "ge": ("at least", lambda number, limit: number >= limit),
    "lt": ("below", lambda number, limit: number < limit),
    "le": ("at most", lambda number, limit: number <= limit),
}


@dataclass(frozen=True, slots=True)
class Values:
    """What an option takes. kinds: of values, as in _KIND, or ANY. choices: besides them."""

    kinds: frozenset[str]
    choices: tuple[Any, ...]

    @classmethod
    def of(cls, annotation: ast.expr, named: Named) -> "Values":
        """Read an annotation. named: says what the names in it allow, except for Python's own types."""
        kinds: set[str] = set()
        choices: list[Any] = []
        for one in types(annotation, named):
            if isinstance(one, ast.Constant):
                choices.append(one.value)
            else:
                kinds.add(one)
        return cls(frozenset(kinds), tuple(dict.fromkeys(choices)))

    def allow(self, value: Any) -> bool:
        """Whether the value is of an allowed kind, or one of the choices."""
        return value is None or value in self.choices or bool({_kind(value), ANY} & self.kinds)

    def check(self, flag: str, value: Any, field: ast.AnnAssign | None = None) -> None:
        """Raise ValueError naming the flag if the value is not allowed. field: of pydantic, with limits of numbers."""
        if value is None or value in self.choices:
            return
        kind, shown = _kind(value), value if isinstance(value, str) else json.dumps(value)
        if kind == "str" and "str" not in self.kinds and value.startswith(("{", "[")):
            raise ValueError(f"{flag} is not valid JSON: '{shown}'")
        if self.allow(value):
            _check_limits(flag, value, field)
            return
        # Where numbers are allowed, whole ones are.
        allowed = [words for one, words in _WORDS.items() if one in self.kinds and one != "int"]
        if "int" in self.kinds and "float" not in self.kinds:
            allowed.insert(0, _WORDS["int"])
        # Next to any text, the choices are those that the engine itself knows: plugins bring others.
        texts = [] if "str" in self.kinds else [str(choice) for choice in self.choices]
        if texts:
            allowed.append(f"one of {', '.join(texts)}")
        guess = did_you_mean(shown, texts) if kind == "str" else ""
        raise ValueError(f"{flag} must be {' or '.join(allowed)}, not '{shown}'{guess}")


def types(node: ast.expr | None, named: Named) -> Iterator[str | ast.Constant]:
    """The kinds of values, and the constants, that an annotation allows."""
    if isinstance(node, ast.BinOp):
        yield from types(node.left, named)
        yield from types(node.right, named)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield from types(ast.parse(node.value, mode="eval").body, named)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        yield from _subscripted(node.value.id, node.slice, named)
    elif isinstance(node, ast.Name):
        yield from _BUILTINS[node.id] if node.id in _BUILTINS else named(node.id)
    else:
        yield ANY


def declared(node: ast.stmt, name: str, named: Named) -> Iterator[str | ast.Constant] | None:
    """What a name allows that a statement declares, as a class or an alias; None if it declares another."""
    if isinstance(node, ast.ClassDef) and node.name == name:
        # A class that is no configuration may be an enumeration, whose values are not read here.
        return iter(["dict" if name.endswith("Config") else ANY])
    value = _assigned(node, name)
    return types(value, named) if value else None


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    """The value that a statement gives to this name."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    if any(isinstance(target, ast.Name) and target.id == name for target in targets):
        return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return None


def _kind(value: Any) -> str:
    return _KIND.get(type(value), ANY)


def _subscripted(name: str, inner: ast.expr, named: Named) -> Iterator[str | ast.Constant]:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        for part in parts:
            if isinstance(part, ast.Constant):
                yield part
            else:
                # Another Literal's name, whose choices are meant.
                yield from types(part, named)
    elif name in ("Optional", "Union"):
        for part in parts:
            yield from types(part, named)
    elif name in ("Annotated", "SkipValidation"):
        yield from types(parts[0], named)
    else:
        # typing's List and Dict are list and dict.
        yield from _BUILTINS.get(name.lower(), (ANY,))


def _check_limits(flag: str, value: Any, field: ast.AnnAssign | None) -> None:
    """Raise ValueError naming the flag if a number is beyond the limits that pydantic's Field has for it."""
    if field is None or not isinstance(field.value, ast.Call) or _kind(value) not in ("int", "float"):
        return
    for words, limit, within in _limits(field.value.keywords):
        if not within(value, limit):
            raise ValueError(f"{flag} must be {words} {limit:g}, not {json.dumps(value)}")


def _limits(keywords: Iterable[ast.keyword]) -> Iterator[tuple[str, float, Any]]:
    for keyword in keywords:
        if keyword.arg not in _LIMITS or not isinstance(keyword.value, ast.Constant):
            continue
        if isinstance(limit := keyword.value.value, int | float):
            words, within = _LIMITS[keyword.arg]
            yield words, limit, within
