# SPDX-License-Identifier: Apache-2.0
"""The options of `--engine llmapi` and `--engine module:Class`, as far as source files here name them."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.command_line import as_written, did_you_mean, flag_of, unknown_option
from common.model_names import ENGINE
from engines.llmapi.synonyms import SYNONYMS
from preprocessing.engine_traits import LLMAPI
from scripts.launcher.class_fields import classes, defined_names, fields, literal, module_file, parsed
from scripts.launcher.option_values import ANY, Values, declared

# The arguments of TensorRT-LLM's `LLM` on its PyTorch backend.
_MODULE, _CLASSES, _BACKEND = "tensorrt_llm.llmapi.llm_args", ("BaseLlmArgs", "TorchLlmArgs"), "pytorch"
# Types of pydantic, whose limits are left to it.
_NUMBERS = {
    f"{sign}{kind.title()}": (kind, "int")
    for sign in ("Positive", "NonNegative", "Negative", "NonPositive")
    for kind in ("int", "float")
}
# How alike an unknown module and one beside `model.py` are if it is a slip.
_SLIP = 0.8
# The attribute of an engine's class that names its options.
OPTIONS = "OPTIONS"


def check_engine(engine: str, repository: Path) -> None:
    """Check the module and class of `--engine module:Class`; raises ValueError.

    A module that is not found may be where only tritonserver finds it, unless it looks like a slip.
    """
    module, _, name = engine.partition(":")
    file = _engine_file(module, repository)
    if file is None:
        beside = (path.stem for path in _folder(repository).glob("*.py") if path.stem != "model")
        if not _is_elsewhere(module) and (guess := did_you_mean(module, beside, _SLIP)):
            raise ValueError(f"--engine {engine}: there is no module {module}{guess}")
        return
    source = parsed(file)
    known = set(defined_names(source))
    if name not in known and not known & {"*", "__getattr__"}:
        guess = did_you_mean(name, classes(source))
        raise ValueError(f"--engine {engine}: {file} has no class {name}{guess}")


def check_installed(engine: str, repository: Path) -> None:
    """Check that the package of `llmapi` is in this Python, which the embedded tritonserver uses; raises ValueError."""
    package = _MODULE.partition(".")[0]
    if engine == LLMAPI and find_spec(package) is None and _engine_file(package, repository) is None:
        raise ValueError(f"--engine {LLMAPI} needs the package {package}: pip install {package}")


def _is_elsewhere(module: str) -> bool:
    """Whether a module may be found in another way than in a folder."""
    if "." in module:
        return True
    try:
        return find_spec(module) is not None
    except ValueError:
        # It is imported, and has no spec.
        return True


def check_other_options(engine: str, options: Mapping[str, Any], repository: Path, others: Iterable[str]) -> None:
    """Check the names of an engine's options, and the values of `llmapi`; raises ValueError naming the flag.

    Nothing is checked if the source that names them is not here. others: flags that may have been meant.
    """
    arguments: Mapping[str, ast.AnnAssign] = {}
    if engine != LLMAPI:
        known = _declared_options(engine, repository)
    elif options.get("backend", _BACKEND) == _BACKEND and (source := _llmapi_source(repository)):
        arguments = _llmapi_arguments(source)
        known = frozenset(arguments.keys() | SYNONYMS.keys()) if arguments else frozenset()
    else:
        known = frozenset()
    for name, value in options.items():
        if known and name not in known:
            raise ValueError(unknown_option(*as_written(name, value, [*map(flag_of, sorted(known)), *others])))
        if name in arguments and source:
            _check_argument(flag_of(name), value, arguments[name], source)


def _folder(repository: Path) -> Path:
    """The folder of `model.py`, whose process finds modules in it."""
    return repository / ENGINE / "1"


def _engine_file(module: str, repository: Path) -> Path | None:
    return module_file(module, [_folder(repository)])


def _llmapi_source(repository: Path) -> ast.Module | None:
    file = _engine_file(_MODULE, repository)
    return None if file is None else parsed(file)


def _llmapi_arguments(source: ast.Module) -> Mapping[str, ast.AnnAssign]:
    """The arguments of `LLM` by all names that are accepted here."""
    found = classes(source)
    own = {
        name: node
        for kind in _CLASSES
        if kind in found
        for field, node in fields(found[kind]).items()
        for name in (field, *_aliases(node))
    }
    return own | {ours: own[theirs] for ours, theirs in SYNONYMS.items() if theirs in own}


def _check_argument(flag: str, value: Any, field: ast.AnnAssign, source: ast.Module) -> None:
    """Check a value; raises ValueError. What pydantic would convert, as a text to a number, is left to it."""
    values = Values.of(field.annotation, partial(_named, source))
    # A revision of digits only is read as a number.
    digits = isinstance(value, int | float) and values.kinds & {"bool", "str"}
    if not digits and not (isinstance(value, str) and re.fullmatch(r"\s*[-+.\d][-+.\de]*\s*", value)):
        values.check(flag, value, field)


def _named(source: ast.Module, name: str) -> Iterator[str | ast.Constant]:
    """What a name in the source of the arguments allows."""
    if name in _NUMBERS:
        yield from _NUMBERS[name]
        return
    for node in source.body:
        if found := declared(node, name, partial(_named, source)):
            yield from found
            return
    yield ANY


def _aliases(field: ast.AnnAssign) -> Iterator[str]:
    """Other names that pydantic takes for a field."""
    for keyword in field.value.keywords if isinstance(field.value, ast.Call) else ():
        if keyword.arg in ("alias", "validation_alias"):
            yield from (str(one.value) for one in ast.walk(keyword.value) if isinstance(one, ast.Constant))


def _declared_options(engine: str, repository: Path) -> frozenset[str]:
    """The literal OPTIONS of an engine's class; empty without one."""
    module, _, name = engine.partition(":")
    file = _engine_file(module, repository)
    node = None if file is None else classes(parsed(file)).get(name)
    value = None if node is None else literal(node, OPTIONS)
    return frozenset(map(str, value)) if isinstance(value, tuple | list | set) else frozenset()
