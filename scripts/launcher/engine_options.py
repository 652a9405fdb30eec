# SPDX-License-Identifier: Apache-2.0
"""The options of `--engine llmapi` and `--engine module:Class`, as far as source files here name them."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.command_line import as_written, did_you_mean, flag_of, unknown_option
from common.model_names import ENGINE
from engines.llmapi.synonyms import SYNONYMS
from preprocessing.engine_traits import LLMAPI
from scripts.launcher.class_fields import classes, defined_names, fields, literal, module_file, parsed

# The arguments of TensorRT-LLM's `LLM` on its PyTorch backend.
_MODULE, _CLASSES, _BACKEND = "tensorrt_llm.llmapi.llm_args", ("BaseLlmArgs", "TorchLlmArgs"), "pytorch"
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


def _is_elsewhere(module: str) -> bool:
    """Whether a module may be found in another way than in a folder."""
    if "." in module:
        return True
    try:
        return find_spec(module) is not None
    except ValueError:
        # It is imported, and has no spec.
        return True


def check_names(engine: str, options: Mapping[str, Any], repository: Path, others: Iterable[str]) -> None:
    """Check the names of an engine's options; raises ValueError naming the flag.

    Nothing is checked if the source that names them is not here. others: flags that may have been meant.
    """
    if engine == LLMAPI:
        known = _llmapi_options(repository) if options.get("backend", _BACKEND) == _BACKEND else frozenset()
    else:
        known = _declared_options(engine, repository)
    for name, value in options.items():
        if known and name not in known:
            raise ValueError(unknown_option(*as_written(name, value, [*map(flag_of, sorted(known)), *others])))


def _folder(repository: Path) -> Path:
    """The folder of `model.py`, whose process finds modules in it."""
    return repository / ENGINE / "1"


def _engine_file(module: str, repository: Path) -> Path | None:
    return module_file(module, [_folder(repository)])


def _llmapi_options(repository: Path) -> frozenset[str]:
    file = _engine_file(_MODULE, repository)
    if file is None:
        return frozenset()
    found = classes(parsed(file))
    names = {
        name
        for kind in _CLASSES
        if kind in found
        for field, node in fields(found[kind]).items()
        for name in (field, *_aliases(node))
    }
    return frozenset(names | SYNONYMS.keys()) if names else frozenset()


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
