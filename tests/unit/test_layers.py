# SPDX-License-Identifier: Apache-2.0
"""Imports run downwards only: between packages, between the rooms of a package, and between modules."""

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support.packages import PACKAGES

ROOT = Path(__file__).parents[2]

# Package -> the packages that it may import, as in docs/architecture.md.
LAYERS: dict[str, set[str]] = {
    "common": set(),
    "python_backend": {"common"},
    "families": {"common"},
    "preprocessing": {"common", "engines.vllm.processor", "families", "python_backend"},
    "postprocessing": {"common", "families", "python_backend"},
    "engines": {"common", "families", "python_backend"},
    # The one door for other packages: it runs in the processes of `preprocessing`.
    "engines.vllm.processor": {"common", "engines", "python_backend"},
    "vision": {"common", "python_backend"},
    "frontend": {"common", "families"},
    "embedding_repository": {"common", "engines", "python_backend"},
    "model_repository": {"common", "engines", "postprocessing", "preprocessing", "python_backend", "vision"},
    "models.demo_vlm": {"common", "preprocessing"},
    "chat_page": set(),
    "scripts": set(PACKAGES) | {"engines.vllm.processor", "models.demo_vlm", "models.demo_vlm.training"},
    "models.demo_vlm.training": {"common", "models.demo_vlm", "preprocessing", "scripts"},
}
# Packages whose folders are rooms with a direction of their own.
ROOMS = ("frontend", "scripts")


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """The project's modules that a file imports anywhere in it, those for type checkers included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names: Iterable[str] = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else node.module for name in below]
        else:
            continue
        yield from (name for name in names if name in MODULES)


ARROWS = {name: set(imports(path)) - {name} for name, path in MODULES.items()}


def layer(module: str) -> str:
    """The key of LAYERS that a module belongs to: the longest that begins its name."""
    return max((name for name in LAYERS if f"{module}.".startswith(f"{name}.")), key=len)


def room(module: str) -> str:
    """The folder of a module below its package, or the package itself for the modules at its root."""
    package, *rest = module.split(".")
    return f"{package}.{rest[0]}" if rest and (ROOT / package / rest[0]).is_dir() else package


def assert_no_cycle(arrows: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail("import cycle: " + " -> ".join(error.args[1]))


def test_every_package_imports_only_what_lies_below_it() -> None:
    wrong = {
        f"{name} imports {other}"
        for name, others in ARROWS.items()
        for other in others
        if layer(other) not in {layer(name), *LAYERS[layer(name)]}
    }
    assert not wrong


def test_no_modules_import_each_other() -> None:
    assert_no_cycle(ARROWS)


@pytest.mark.parametrize("package", ROOMS)
def test_rooms_have_one_direction(package: str) -> None:
    """A package's root is one room too, but for what every room may import."""
    shared = {"frontend": {"frontend", "frontend.errors", "frontend.settings"}, "scripts": set[str]()}[package]
    arrows: dict[str, set[str]] = {}
    for name, others in ARROWS.items():
        if name.split(".")[0] == package and name not in shared:
            used = {room(other) for other in others - shared if other.split(".")[0] == package}
            arrows.setdefault(room(name), set()).update(used - {room(name)})
    assert_no_cycle(arrows)


def test_only_one_room_knows_tritons_utilities() -> None:
    users = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES.values()
        if "triton_python_backend_utils" in path.read_text(encoding="utf-8")
    }
    assert users and all(user.startswith("python_backend/") for user in users)
