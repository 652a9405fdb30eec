# SPDX-License-Identifier: Apache-2.0
"""Read the two files of a checkpoint's `vision/` folder, config.json and model.safetensors."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from common.files import reason

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_MAX_NAMES = 8


def read_config(folder: Path) -> dict[str, Any]:
    """Read vision/config.json. Raises ValueError with the path if it does not hold a JSON object."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"vision tower: '{path}' cannot be read: {reason(error)}") from error
    if not isinstance(config, dict):
        raise ValueError(f"vision tower: '{path}' does not hold a JSON object")
    return config


def read_tensors(folder: Path, device: torch.device) -> dict[str, torch.Tensor]:
    """Read the tensors of vision/model.safetensors to the device. Raises ValueError if the file is missing."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(f"vision tower: there is no '{path}'")
    return load_file(path, device=str(device))


def assign(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Make `tensors` the module's parameters; it may be on the meta device.

    Raises ValueError that lists missing and unexpected names and wrong shapes, if there are any.
    """
    expected = module.state_dict()
    wrong = [
        f"'{name}' is {list(tensors[name].shape)}, not {list(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    problems = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": sorted(tensors.keys() - expected.keys()),
        "of another shape": wrong,
    }
    if any(problems.values()):
        found = "; ".join(f"{kind}: {_listed(names)}" for kind, names in problems.items() if names)
        raise ValueError(f"vision tower: the tensors in {WEIGHTS} do not fit {CONFIG}: {found}")
    module.load_state_dict(tensors, assign=True)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
