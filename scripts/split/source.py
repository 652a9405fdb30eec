# SPDX-License-Identifier: Apache-2.0
"""Read the source checkpoint: its JSON files, and its tensors one at a time."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from scripts.split.config import read
from scripts.split.errors import SplitError, listed
from scripts.split.plan import DTYPES, Shape

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
_DTYPE_NAMES = {code: name for name, (code, _) in DTYPES.items()}
# Rows compared at a time: 4096 rows of a 70B model are 64 MiB.
_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor's file and header. dtype: its code in safetensors, such as BF16."""

    file: Path
    dtype: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint whose weight files are complete and have readable headers."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Stored]

    @classmethod
    def open(cls, folder: Path, config: Mapping[str, Any]) -> "Source":
        """Read all headers; raises SplitError naming files that are missing or broken."""
        tensors: dict[str, Stored] = {}
        for file, listed_names in _weight_files(folder).items():
            found = _header(file)
            lacking = sorted(listed_names - found.keys())
            if lacking:
                raise SplitError(f"'{file}' lacks tensors that {INDEX} promises: {listed(lacking)}.")
            tensors |= found
        return cls(folder, config, tensors)

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor and close the file, as a mapping that stays open would keep whole files in memory."""
        with safe_open(self.tensors[name].file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def equal(self, one: str, other: str) -> bool:
        """Whether two tensors hold the same values, compared a few rows at a time."""
        first, second = self.tensors[one], self.tensors[other]
        if (first.shape, first.dtype) != (second.shape, second.dtype):
            return False
        with safe_open(first.file, framework="pt") as file, safe_open(second.file, framework="pt") as other_file:
            left, right = file.get_slice(one), other_file.get_slice(other)
            starts = range(0, first.shape[0], _ROWS)
            return all(torch.equal(left[start : start + _ROWS], right[start : start + _ROWS]) for start in starts)

    def dtype(self, names: Iterable[str]) -> str:
        """The dtype that most values of these tensors are stored in."""
        counts: dict[str, int] = {}
        for name in names:
            stored = self.tensors[name]
            counts[stored.dtype] = counts.get(stored.dtype, 0) + torch.Size(stored.shape).numel()
        return _DTYPE_NAMES[max(counts, key=lambda code: counts[code])]

    def check_dtypes(self, names: Iterable[str]) -> None:
        """Raises SplitError if some tensors are not plain floating-point weights."""
        strange = [f"{name} ({self.tensors[name].dtype})" for name in names]
        strange = [
            text for text, name in zip(strange, names, strict=True) if self.tensors[name].dtype not in _DTYPE_NAMES
        ]
        if strange:
            raise SplitError(
                f"'{self.folder}' looks quantised: {listed(strange)}. "
                f"Split the unquantised checkpoint (known: {', '.join(DTYPES)}) and quantise the result."
            )


def _weight_files(folder: Path) -> dict[Path, set[str]]:
    """The weight files, each with the names of its tensors in the index."""
    if not (folder / INDEX).is_file():
        if (folder / SINGLE).is_file():
            return {folder / SINGLE: set()}
        if any(folder.glob("*.bin")):
            raise SplitError(
                f"'{folder}' has its weights as .bin files, which are not read here. Save them as safetensors: "
                "load the model with transformers and call save_pretrained."
            )
        raise SplitError(f"'{folder}' has neither {INDEX} nor {SINGLE}.")
    weight_map = read(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise SplitError(f"'{folder / INDEX}' has no weight_map.")
    files: dict[Path, set[str]] = {}
    for name, file in weight_map.items():
        files.setdefault(folder / file, set()).add(name)
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise SplitError(f"'{folder}' lacks weight files that its index names: {listed(missing)}.")
    return files


def _header(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {name: Stored(path, part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        raise SplitError(f"'{path}' is broken or not wholly downloaded ({error}).") from error


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object like the published checkpoints: indented, in UTF-8."""
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
