# SPDX-License-Identifier: Apache-2.0
"""Docstrings begin with a sentence, and errors are raised "if" something holds."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.packages import PACKAGES

ROOT = Path(__file__).parents[2]
FOLDERS = (*PACKAGES, "tests")


def docstrings(folder: str) -> Iterator[tuple[str, str]]:
    """Place and text of each docstring below a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', 'module')}", text


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_docstring_begins_with_a_sentence(folder: str) -> None:
    """Not with a parameter and its meaning."""
    assert not [place for place, text in docstrings(folder) if re.match(r"[a-z_]+(, [a-z_]+)*: ", text)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_error_is_raised_if(folder: str) -> None:
    wrong = re.compile(r"\braises? \w+ where\b", re.IGNORECASE)
    assert not [place for place, text in docstrings(folder) if wrong.search(text)]
