# SPDX-License-Identifier: Apache-2.0
"""Read the JSON files of the source checkpoint, without torch, whose import takes seconds."""

from pathlib import Path
from typing import Any

from common.checkpoint import read_json
from scripts.split.errors import SplitError


def read_config(folder: Path) -> dict[str, Any]:
    """Read the checkpoint's config.json; raises SplitError if there is none."""
    if not folder.is_dir():
        raise SplitError(f"there is no checkpoint folder '{folder}'.")
    if not (folder / "config.json").is_file():
        raise SplitError(f"'{folder}' has no config.json.")
    return read(folder / "config.json")


def read(path: Path) -> dict[str, Any]:
    """Read the JSON object in `path`, empty if there is no such file; raises SplitError for invalid JSON."""
    try:
        return read_json(path)
    except ValueError as error:
        raise SplitError(f"{error}.") from error
