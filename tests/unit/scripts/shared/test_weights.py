# SPDX-License-Identifier: Apache-2.0
"""The weight files of a checkpoint; the doctor's tests have the broken ones."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from scripts.shared.weights import weight_bytes, weights_problem


def test_a_sharded_model_is_complete(tmp_path: Path) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in names:
        save_file({name: np.zeros(4, np.float32)}, tmp_path / name)
    index = {"weight_map": {name: name for name in names}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights_problem(tmp_path) is None


def test_the_size_includes_the_vision_part(tmp_path: Path) -> None:
    (tmp_path / "vision").mkdir()
    for folder in (tmp_path, tmp_path / "vision"):
        (folder / "model.safetensors").write_bytes(b"12345")
    assert weight_bytes(tmp_path) == 10
