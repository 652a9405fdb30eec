# SPDX-License-Identifier: Apache-2.0
"""Published chat templates, which are not part of the repository.

They are read from the folder that `CHAT_TEMPLATES` names, else from `../shared/templates` beside the repository. A test
that needs a missing one is skipped.
"""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("CHAT_TEMPLATES") or Path(__file__).parents[3] / "shared" / "templates")
NAMES = tuple(sorted(file.stem for file in FOLDER.glob("*.jinja")))


def published(name: str) -> str:
    """The text of a template; skips the test if it is missing."""
    file = FOLDER / f"{name}.jinja"
    if not file.is_file():
        pytest.skip(f"no template {file}")
    return file.read_text(encoding="utf-8")
