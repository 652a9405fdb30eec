# SPDX-License-Identifier: Apache-2.0
"""Modules of a Triton model, imported as its stub imports them: from its version folder."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1] / "model_repository"


@contextmanager
def model_modules(monkeypatch: pytest.MonkeyPatch, *models: str, repository: Path = REPOSITORY) -> Iterator[None]:
    """The version folders of `models` on the path. Their modules share names, so none is left for other tests."""
    folders = [repository / model / "1" for model in models]
    names = {path.stem for folder in folders for path in folder.glob("*.py")}
    _drop(names)
    for folder in folders:
        monkeypatch.syspath_prepend(str(folder))
    try:
        yield
    finally:
        _drop(names)


def _drop(names: set[str]) -> None:
    for name in names:
        sys.modules.pop(name, None)
