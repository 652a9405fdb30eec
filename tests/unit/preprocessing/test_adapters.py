# SPDX-License-Identifier: Apache-2.0
"""Adapters as NVIDIA's C++ backend takes them: a row for each module of each layer, and their table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from common.errors import RequestError
from preprocessing.adapters import BackendAdapters, pack
from tests.support.plain_adapter import write_adapter, write_base

DOWN = "base_model.model.model.layers.1.mlp.down_proj"


def test_a_row_is_both_matrices_with_the_scale_in_the_second(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    down_a, down_b = torch.arange(8.0).reshape(2, 4), torch.arange(12.0).reshape(6, 2)
    weights = {f"{DOWN}.lora_A.weight": down_a.bfloat16(), f"{DOWN}.lora_B.weight": down_b.bfloat16()}
    queue = "base_model.model.model.layers.0.self_attn.q_proj"
    weights |= {f"{queue}.lora_A.weight": torch.ones(4, 8), f"{queue}.lora_B.weight": torch.ones(16, 4)}
    save_file(weights, folder / "adapter_model.safetensors")
    packed, config = pack(folder)
    assert config.dtype == np.int32 and config.tolist() == [[1, 0, 4], [6, 1, 2]]
    assert packed.dtype == np.float16 and packed.shape == (2, 96)
    assert packed[0].tolist() == [1.0] * 32 + [16 / 4] * 64
    row = down_a.flatten().tolist() + (down_b * 16 / 2).flatten().tolist()
    assert packed[1].tolist() == row + [0.0] * (96 - len(row))


def test_the_square_root_of_the_rank(tmp_path: Path) -> None:
    packed, _ = pack(write_adapter(tmp_path / "a", use_rslora=True))
    assert packed[0, -1] == np.float16(16 / 8**0.5)


@pytest.mark.parametrize(
    ("config", "scales"),
    [
        ({"alpha_pattern": {"q_proj": 32}}, [4, 4]),
        ({"alpha_pattern": {"layers.1.self_attn.q_proj": 32, "q_proj": 8}}, [1, 4]),
        ({"alpha_pattern": {r"^model\.layers\.0\..*": 24}}, [3, 2]),
        ({"alpha_pattern": {"^model.layers.0": 64, "^model.layers.0.self_attn.q_proj": 24}}, [3, 2]),
        ({"alpha_pattern": {r"layers\.[01]\.self_attn\.q_proj": 8}, "use_rslora": True}, [8 / 8**0.5] * 2),
        ({"alpha_pattern": {"proj": 32, "k_proj": 8}, "rank_pattern": {"k_proj": 4}}, [2, 2]),
    ],
    ids=str,
)
def test_the_alpha_of_single_modules(tmp_path: Path, config: dict[str, Any], scales: list[float]) -> None:
    packed, _ = pack(write_adapter(tmp_path / "a", **config))
    assert packed[:, -1].tolist() == [np.float16(scale) for scale in scales]


def test_an_alpha_pattern_that_is_no_pattern(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"alpha_pattern: q\( is no regular expression"):
        pack(write_adapter(tmp_path / "a", alpha_pattern={"q(": 8}))


def test_modules_that_the_backend_does_not_know(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    write_adapter(tmp_path / "a", module="model.layers.0.self_attn.qkv_proj")
    with pytest.raises(ValueError, match=r"LoRA adapter 'sql': it changes .*qkv_proj"):
        BackendAdapters.read(json.dumps([{"name": "sql", "path": str(tmp_path / "a")}]), base)


def test_adapters_are_found_by_their_ids(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    assert BackendAdapters.read(None, base).all() == []
    adapters = BackendAdapters.read(json.dumps({"sql": str(write_adapter(tmp_path / "a"))}), base)
    (sql,) = adapters.all()
    assert sql.name == "sql" and len(adapters.weights(sql.id)[0]) == 2
    with pytest.raises(RequestError, match="no adapter with the id 3") as error:
        adapters.weights(3)
    assert error.value.kind == "not_found"
