# SPDX-License-Identifier: Apache-2.0
"""A user's folder whose packages have the names of this project's own."""

from pathlib import Path

from triton_chat import PACKAGES

# Triton's Python backend imports each model as the module `1.model`.
NAMES = (*PACKAGES, "1")


def make_hostile_folder(folder: Path) -> Path:
    """Fill `folder` with packages that raise as soon as one of them is imported."""
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the {name} of the user was imported')\n")
    return folder
