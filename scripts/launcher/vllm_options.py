# SPDX-License-Identifier: Apache-2.0
"""The options of the installed vLLM and their values, read from its source: importing it takes ten seconds and 1 GB."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.command_line import as_written, flag_of, unknown_option
from scripts.launcher.class_fields import fields
from scripts.launcher.option_values import ANY, Values, declared

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
    _values(name).check(flag_of(name), value, _config_field(name))


def is_text(name: str, word: str, value: Any) -> bool:
    """Whether a word of the command line is a text for vLLM's option, and not the value that it looks like.

    So are a revision of digits only, and the choice "none".
    """
    if name not in vllm_options():
        return False
    values = _values(name)
    return word in values.choices or ("str" in values.kinds and not values.allow(value))


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
def _values(name: str) -> Values:
    return Values.of(_fields()[name].annotation, partial(_named, _ARGUMENTS))


def _named(file: str, name: str) -> Iterator[str | ast.Constant]:
    """What a name of this file allows: an alias, a class of options, or what it is imported as."""
    for node in _module(file):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm."):
            if any((alias.asname or alias.name) == name for alias in node.names):
                yield from _imported(str(node.module), name)
                return
        elif found := declared(node, name, partial(_named, file)):
            yield from found
            return
    yield ANY


def _imported(module: str, name: str) -> Iterator[str | ast.Constant]:
    base = "/".join(module.split(".")[1:])
    for file in (f"{base}.py", f"{base}/__init__.py"):
        if _module(file):
            yield from _named(file, name)
            return
    yield ANY


def _config_field(name: str) -> ast.AnnAssign | None:
    """The field of a configuration class that is the option's default, which has its limits.

    An option without a default has those of the only class with a field of its name.
    """
    default = _fields()[name].value
    if isinstance(default, ast.Attribute) and isinstance(default.value, ast.Name):
        return _class_field(default.value.id, default.attr)
    if isinstance(default, ast.Constant) and default.value is None:
        found = [field for kind in _config_classes() if (field := _class_field(kind, name)) is not None]
        return found[0] if len(found) == 1 else None
    return None


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
