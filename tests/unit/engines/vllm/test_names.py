# SPDX-License-Identifier: Apache-2.0
"""The names that the adapter takes from vLLM exist in the installed version; one failing test lists all that do not."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import engines.vllm

ROOT = Path(engines.vllm.__file__).parents[2]


def imported_names() -> Iterator[tuple[str, str]]:
    """(module, name) of each `from vllm... import name`, at any depth of a file."""
    for path in sorted(path for folder in ("engines", "scripts", "vision") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "vllm":
                yield from ((str(node.module), alias.name) for alias in node.names)


def exists(module: str, name: str) -> bool:
    try:
        if hasattr(importlib.import_module(module), name):
            return True
        importlib.import_module(f"{module}.{name}")
    except ImportError as error:
        # Some modules need packages that are only installed to measure vLLM itself, such as torchaudio.
        foreign = (error.name or "vllm").partition(".")[0] != "vllm"
        return foreign and name in defined_names(module)
    return True


def defined_names(module: str) -> set[str]:
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def overridden_names() -> Iterator[tuple[type, str]]:
    """(class of vLLM, method) of each method that a class of the adapter replaces."""
    for found in pkgutil.iter_modules(engines.vllm.__path__, "engines.vllm."):
        module = importlib.import_module(found.name)
        own = [one for one in vars(module).values() if isinstance(one, type) and one.__module__ == found.name]
        for one in own:
            for base in one.__mro__:
                if base.__module__.partition(".")[0] == "vllm":
                    yield from ((base, name) for name in methods(one))
                    break


def methods(cls: type) -> set[str]:
    """What a class itself defines, without what Python adds and what only its own instances use."""
    return {name for name, value in vars(cls).items() if callable(value) and not name.startswith("__")}


# Methods of our subclasses that the newest vLLM does not know: our own, and one that it called until 0.30.
OWN = {"values", "report", "get_dummy_processor_inputs"}


def test_the_imported_names_exist() -> None:
    wanted = set(imported_names())
    assert ("vllm.v1.engine.async_llm", "AsyncLLM") in wanted
    missing = sorted(f"{module}.{name}" for module, name in wanted if not exists(module, name))
    assert not missing, "vLLM has moved or removed these"


def test_the_overridden_methods_exist() -> None:
    wanted = set(overridden_names())
    assert len(wanted) > 3
    missing = sorted(f"{base.__name__}.{name}" for base, name in wanted if not hasattr(base, name) and name not in OWN)
    assert not missing, "vLLM no longer calls these"
