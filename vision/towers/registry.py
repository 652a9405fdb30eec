# SPDX-License-Identifier: Apache-2.0
"""The vision towers that torch can run, by `model_type` of vision/config.json."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from vision.towers.tower import Tower
from vision.towers.weights import read_config

# model_type -> a module with load(folder, config, dtype, device). Only the chosen one is imported, because SigLIP needs
# transformers, which takes seconds.
TOWERS = {"internvit": "vision.towers.internvit", "siglip_gemma3": "vision.towers.siglip_gemma3"}
Value = TypeVar("Value")
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def load_tower(folder: Path, dtype: str, device: torch.device) -> Tower:
    """Load the tower of a vision folder, ready to run.

    dtype: a name in DTYPES, or "auto" for the dtype of the stored weights. Raises ValueError if model_type or dtype is
    unknown, or if the weights do not fit.
    """
    config = read_config(folder)
    module = _known("model_type", config.get("model_type"), TOWERS)
    tower: Tower = importlib.import_module(module).load(folder, config, tower_dtype(config, dtype), device)
    return tower.eval().requires_grad_(False)


def tower_dtype(config: Mapping[str, Any], dtype: str) -> torch.dtype:
    """Look up the dtype of a tower's layers.

    config: of the vision folder. dtype: as for `load_tower`. Raises ValueError if it is unknown.
    """
    return _known("dtype", config.get("dtype") if dtype == "auto" else dtype, DTYPES)


def _known(key: str, value: Any, table: Mapping[str, Value]) -> Value:
    if value not in table:
        raise ValueError(f"vision tower: unknown {key} '{value}'; known: {', '.join(sorted(table))}")
    return table[value]
