# SPDX-License-Identifier: Apache-2.0
"""Classes as their source declares them: an engine's package takes seconds to import, or is for another process."""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path


def module_file(module: str, folders: Sequence[Path] = ()) -> Path | None:
    """The source file of a module in these folders, else in this Python's packages; None if there is none."""
    search, found = [*map(str, folders), *sys.path], None
    for name in module.split("."):
        found = PathFinder.find_spec(name, search)
        if found is None:
            return None
        search = list(found.submodule_search_locations or ())
    return Path(found.origin) if found and found.origin and found.origin.endswith(".py") else None


def parsed(file: Path) -> ast.Module:
    """The source of a module; raises ValueError if it is no Python."""
    try:
        return ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise ValueError(f"{file} is not valid Python, in line {error.lineno}") from error


def classes(module: ast.Module) -> Mapping[str, ast.ClassDef]:
    """The classes of a module, by name."""
    return {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}


def fields(node: ast.ClassDef) -> Mapping[str, ast.AnnAssign]:
    """The annotated fields of a class, by name."""
    return {
        one.target.id: one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }


def literal(node: ast.ClassDef, name: str) -> object:
    """The value of a class's attribute that is written as a literal, else None."""
    for one in node.body:
        if not isinstance(one, ast.Assign | ast.AnnAssign) or one.value is None:
            continue
        targets = one.targets if isinstance(one, ast.Assign) else [one.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            try:
                value: object = ast.literal_eval(one.value)
            except ValueError:
                return None
            return value
    return None


def defined_names(node: ast.AST) -> Iterator[str]:
    """The names that a module's statements define or import; "*" for those of a star import."""
    for one in ast.iter_child_nodes(node):
        if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield one.name
        elif isinstance(one, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in one.names)
        else:
            if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store):
                yield one.id
            yield from defined_names(one)
