# SPDX-License-Identifier: Apache-2.0
"""The weight files of a checkpoint: their size, and whether they are complete."""

import math
import os
from pathlib import Path

from safetensors import SafetensorError, safe_open

from common.checkpoint import read_json

INDEX = "model.safetensors.index.json"
WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pt")
_LFS_POINTER = b"version https://git-lfs"


def weight_bytes(folder: Path) -> int:
    """The size of a checkpoint's weights, including the vision part; what the index says if files are missing, or 0."""
    found = 0
    for pattern in WEIGHT_FILES:
        found = sum(os.stat(path).st_size for place in (folder, folder / "vision") for path in place.glob(pattern))
        if found:
            break
    return max(found, _readable_index(folder)[0]) if lacks_weights(folder) else found


def has_weights(folder: Path) -> bool:
    """Whether a checkpoint has a weight file."""
    return any(path for pattern in WEIGHT_FILES for path in folder.glob(pattern))


def lacks_weights(folder: Path) -> bool:
    """Whether a checkpoint has no weight files, or not all that its index names."""
    return not has_weights(folder) or any(not (folder / name).is_file() for name in _readable_index(folder)[1])


def weights_problem(folder: Path) -> str | None:
    """A message on missing or broken weight files, or None; the content of .bin files is not checked."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        _, indexed = _index(folder)
    except ValueError as error:
        return f"{error}. Copy it from the published checkpoint again."
    missing = sorted(indexed - {file.name for file in files})
    if missing:
        return f"'{folder}' lacks weight files that {INDEX} names: {', '.join(missing)}. Download them again."
    if not files and not any(folder.glob("*.bin")):
        return f"'{folder}' has no weights (*.safetensors). Download them, or give the folder that has them."
    return next(filter(None, map(_file_problem, files)), None)


def _index(folder: Path) -> tuple[int, set[str]]:
    """The size and the files of the weights, by their index; 0 and none without one. Raises ValueError."""
    index = read_json(folder / INDEX)
    metadata, files = index.get("metadata") or {}, index.get("weight_map") or {}
    if not isinstance(metadata, dict) or not isinstance(files, dict):
        raise ValueError(f"checkpoint: '{folder / INDEX}' is no index of weights")
    size = metadata.get("total_size")
    if not isinstance(size, int | float) or not math.isfinite(size):
        size = 0
    return int(size), set(map(str, files.values()))


def _readable_index(folder: Path) -> tuple[int, set[str]]:
    """The same; 0 and none for an index that is broken."""
    try:
        return _index(folder)
    except ValueError:
        return 0, set()


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
