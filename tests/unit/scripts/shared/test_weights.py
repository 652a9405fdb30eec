# SPDX-License-Identifier: Apache-2.0
"""The weight files of a checkpoint; the doctor's tests have the broken ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from scripts.shared.weights import has_weights, lacks_weights, weight_bytes, weights_problem


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


def test_the_size_of_an_interrupted_download_is_that_of_the_index(tmp_path: Path) -> None:
    index = {"metadata": {"total_size": 100}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert (weight_bytes(tmp_path), has_weights(tmp_path), lacks_weights(tmp_path)) == (100, False, True)
    (tmp_path / "1.safetensors").write_bytes(b"12345")
    assert (weight_bytes(tmp_path), has_weights(tmp_path), lacks_weights(tmp_path)) == (100, True, True)
    (tmp_path / "2.safetensors").write_bytes(b"12345")
    assert (weight_bytes(tmp_path), has_weights(tmp_path), lacks_weights(tmp_path)) == (10, True, False)


@pytest.mark.parametrize(
    "index",
    ["{", "[]", '{"metadata": []}', '{"metadata": [1]}', '{"weight_map": ["a"]}', '{"metadata": {"total_size": NaN}}'],
)
def test_a_broken_index_says_nothing_of_the_size(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert weight_bytes(tmp_path) == 0 and lacks_weights(tmp_path)
    assert weights_problem(tmp_path) is not None
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert weight_bytes(tmp_path) == 5 and not lacks_weights(tmp_path)
