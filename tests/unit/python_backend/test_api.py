# SPDX-License-Identifier: Apache-2.0
"""Triton's API to its Python models: no name of it is used before Triton has set it."""

import ast
from pathlib import Path

import pytest

from tests.support.packages import PACKAGES

ROOT = Path(__file__).parents[3]
FILES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", [path for path in FILES if "pb_utils." in path.read_text(encoding="utf-8")], ids=str)
def test_tritons_classes_are_used_in_functions_only(path: Path) -> None:
    """Triton sets them after it has imported a model's module; constants exist before."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for child in function.body for node in ast.walk(child)}
    used = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pb_utils"
        if id(node) not in inside
    ]
    assert [name for name in used if not name.isupper()] == []
