# SPDX-License-Identifier: Apache-2.0
"""The options of the installed vLLM and their values, read from its source: importing it takes ten seconds and 1 GB."""

import ast
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.command_line import as_written, did_you_mean, flag_of, unknown_option
from scripts.launcher.class_fields import fields

_ARGUMENTS = "engine/arg_utils.py"
_CLASSES = ("EngineArgs", "AsyncEngineArgs")
# Options of the API server of `vllm serve` -> what they are here.
RENAMED = {
    "allowed_origins": "--cors-allow-origins",
    "api_server_count": "--frontends",
    "config": "--engine-config",
    "default_chat_template_kwargs": "--enable-thinking",
    "ssl_certfile": "--tls-certificate",
    "ssl_keyfile": "--tls-key",
    "uvicorn_log_level": "--log-level",
}
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
class _Values:
    """What an option takes. kinds: of values, as in _KIND, or "any". choices: besides them."""

    kinds: frozenset[str]
    choices: tuple[Any, ...]


def check_vllm_options(options: Mapping[str, Any], others: Iterable[str] = ()) -> None:
    """Check names and values of engine options; raises ValueError naming the flag.

    What the source does not say is left to vLLM, and so is everything if vLLM is not installed here.
    others: flags that may have been meant.
    """
    known = vllm_options()
    for name, value in options.items() if known else ():
        if name in RENAMED and name not in known:
            raise ValueError(f"{flag_of(name)} of `vllm serve` is {RENAMED[name]} here")
        if name not in known:
            public = (one for one in known if not one.startswith("_"))
            raise ValueError(unknown_option(*as_written(name, value, [*map(flag_of, public), *others])))
        check_value(name, value)


@cache
def vllm_options() -> frozenset[str]:
    """The options of the installed vLLM; empty without one."""
    return frozenset(_fields())


def check_value(name: str, value: Any) -> None:
    """Raise ValueError naming the flag if vLLM's option cannot have this value."""
    values, kind = _values(name), _KIND.get(type(value), "any")
    if value is None or value in values.choices:
        return
    flag, shown = flag_of(name), value if isinstance(value, str) else json.dumps(value)
    if kind == "str" and "str" not in values.kinds and value.startswith(("{", "[")):
        raise ValueError(f"{flag} is not valid JSON: '{shown}'")
    if not {kind, "any"} & values.kinds:
        # Where numbers are allowed, whole ones are.
        allowed = [words for one, words in _WORDS.items() if one in values.kinds and one != "int"]
        if "int" in values.kinds and "float" not in values.kinds:
            allowed.insert(0, _WORDS["int"])
        # Next to any text, the choices are those that vLLM itself knows: plugins bring others.
        texts = [] if "str" in values.kinds else [str(choice) for choice in values.choices]
        if texts:
            allowed.append(f"one of {', '.join(texts)}")
        guess = did_you_mean(shown, texts) if kind == "str" else ""
        raise ValueError(f"{flag} must be {' or '.join(allowed)}, not '{shown}'{guess}")
    for words, limit, within in _limits(name) if kind in ("int", "float") else ():
        if not within(value, limit):
            raise ValueError(f"{flag} must be {words} {limit:g}, not {shown}")


def is_text(name: str, word: str, value: Any) -> bool:
    """Whether a word of the command line is a text for vLLM's option, and not the value that it looks like.

    So are a revision of digits only, and the choice "none".
    """
    if name not in vllm_options():
        return False
    values = _values(name)
    if word in values.choices:
        return True
    other = value is not None and not {_KIND.get(type(value), "any"), "any"} & values.kinds
    return other and "str" in values.kinds


@cache
def _fields() -> Mapping[str, ast.AnnAssign]:
    """The fields of vLLM's arguments by name."""
    return {
        name: field
        for node in _module(_ARGUMENTS)
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES
        for name, field in fields(node).items()
    }


@cache
def _module(file: str) -> tuple[ast.stmt, ...]:
    """The statements of a file of vLLM's package, with those under `if TYPE_CHECKING`; none without such a file."""
    vllm = find_spec("vllm")
    path = Path(vllm.origin or "").parent / file if vllm else None
    if path is None or not path.is_file():
        return ()
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    # The types that are only imported for type checkers replace placeholders, which come later.
    typing = [one for node in statements if isinstance(node, ast.If) for one in node.body]
    return (*typing, *statements)


@cache
def _values(name: str) -> _Values:
    kinds: set[str] = set()
    choices: list[Any] = []
    for one in _types(_fields()[name].annotation, _ARGUMENTS):
        if isinstance(one, ast.Constant):
            choices.append(one.value)
        else:
            kinds.add(one)
    return _Values(frozenset(kinds), tuple(dict.fromkeys(choices)))


def _types(node: ast.expr, file: str) -> Iterator[str | ast.Constant]:
    """The kinds of values, and the constants, that an annotation allows."""
    if isinstance(node, ast.BinOp):
        yield from _types(node.left, file)
        yield from _types(node.right, file)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield from _types(ast.parse(node.value, mode="eval").body, file)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        yield from _subscripted(node.value.id, node.slice, file)
    elif isinstance(node, ast.Name):
        yield from _BUILTINS[node.id] if node.id in _BUILTINS else _named(node.id, file)
    else:
        yield "any"


def _subscripted(name: str, inner: ast.expr, file: str) -> Iterator[str | ast.Constant]:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if name == "Literal":
        for part in parts:
            if isinstance(part, ast.Constant):
                yield part
            else:
                # Another Literal's name, whose choices are meant.
                yield from _types(part, file)
    elif name in ("Optional", "Union"):
        for part in parts:
            yield from _types(part, file)
    elif name in ("Annotated", "SkipValidation"):
        yield from _types(parts[0], file)
    else:
        yield from _BUILTINS.get(name, ("any",))


def _named(name: str, file: str) -> Iterator[str | ast.Constant]:
    """What a name of this file allows: an alias, a class of options, or what it is imported as."""
    for node in _module(file):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm."):
            if any((alias.asname or alias.name) == name for alias in node.names):
                yield from _imported(name, str(node.module))
                return
        elif isinstance(node, ast.ClassDef) and node.name == name:
            yield "dict" if name.endswith("Config") else "any"
            return
        elif value := _assigned(node, name):
            yield from _types(value, file)
            return
    yield "any"


def _imported(name: str, module: str) -> Iterator[str | ast.Constant]:
    base = "/".join(module.split(".")[1:])
    for file in (f"{base}.py", f"{base}/__init__.py"):
        if _module(file):
            yield from _named(name, file)
            return
    yield "any"


def _assigned(node: ast.stmt, name: str) -> ast.expr | None:
    """The value that a statement gives to this name."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    if any(isinstance(target, ast.Name) and target.id == name for target in targets):
        return node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
    return None


def _limits(name: str) -> Iterator[tuple[str, float, Any]]:
    """The limits of a number: of the field of a configuration class that is the option's default.

    An option without a default has those of the only class with a field of its name.
    """
    default = _fields()[name].value
    if isinstance(default, ast.Attribute) and isinstance(default.value, ast.Name):
        field = _class_field(default.value.id, default.attr)
    elif isinstance(default, ast.Constant) and default.value is None:
        found = [one for kind in _config_classes() if (one := _class_field(kind, name)) is not None]
        field = found[0] if len(found) == 1 else None
    else:
        return
    if field is None or not isinstance(field.value, ast.Call):
        return
    for keyword in field.value.keywords:
        if keyword.arg not in _LIMITS or not isinstance(keyword.value, ast.Constant):
            continue
        if isinstance(limit := keyword.value.value, int | float):
            words, within = _LIMITS[keyword.arg]
            yield words, limit, within


def _config_classes() -> list[str]:
    """The classes that `vllm.config` exports."""
    imports = [node for node in _module("config/__init__.py") if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in imports for alias in node.names if alias.name.endswith("Config")]


def _class_field(class_name: str, field: str) -> ast.AnnAssign | None:
    """The field of a class that `vllm.config` exports."""
    for node in _module("config/__init__.py"):
        if isinstance(node, ast.ImportFrom) and any(alias.name == class_name for alias in node.names):
            for statement in _module(f"{'/'.join(str(node.module).split('.')[1:])}.py"):
                if isinstance(statement, ast.ClassDef) and statement.name == class_name:
                    for one in statement.body:
                        if (
                            isinstance(one, ast.AnnAssign)
                            and isinstance(one.target, ast.Name)
                            and one.target.id == field
                        ):
                            return one
    return None
