# SPDX-License-Identifier: Apache-2.0
"""The weight files of a checkpoint: their size, and whether they are complete."""

import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from common.checkpoint import read_json

INDEX = "model.safetensors.index.json"
_WEIGHT_FILES = ("*.safetensors", "*.bin")
_LFS_POINTER = b"version https://git-lfs"


def weight_bytes(folder: Path) -> int:
    """The size of a checkpoint's weights, including the vision part; without weight files what the index says, or 0."""
    for pattern in _WEIGHT_FILES:
        sizes = [os.stat(path).st_size for place in (folder, folder / "vision") for path in place.glob(pattern)]
        if sizes:
            return sum(sizes)
    size = read_json(folder / INDEX).get("metadata", {}).get("total_size", 0)
    return int(size) if isinstance(size, int | float) else 0


def weights_problem(folder: Path) -> str | None:
    """A message on missing or broken weight files, or None; the content of .bin files is not checked."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        indexed = set(read_json(folder / INDEX).get("weight_map", {}).values())
    except ValueError as error:
        return f"{error}. Copy it from the published checkpoint again."
    missing = sorted(indexed - {file.name for file in files})
    if missing:
        return f"'{folder}' lacks weight files that {INDEX} names: {', '.join(missing)}. Download them again."
    if not files and not any(folder.glob("*.bin")):
        return f"'{folder}' has no weights (*.safetensors). Download them, or give the folder that has them."
    return next(filter(None, map(_file_problem, files)), None)


def _file_problem(file: Path) -> str | None:
    with file.open("rb") as start:
        if start.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return f"'{file}' is a git-lfs pointer. Run `git lfs pull` in its folder."
    try:
        # It compares the header with the file's size.
        with safe_open(file, framework="numpy"):
            return None
    except (SafetensorError, OSError) as error:
        return f"'{file}' is broken or not wholly downloaded ({error}). Download it again."
