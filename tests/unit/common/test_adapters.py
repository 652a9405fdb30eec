# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters: their names on a command line, their ids, and what makes one unfit for a base."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.adapters import (
    Adapter,
    AdapterSource,
    adapter_id,
    check_adapter,
    from_json,
    read_sources,
    to_json,
)
from tests.support.plain_adapter import MODULE, write_adapter, write_base


@pytest.mark.parametrize(
    "value",
    [
        ["sql=/a/sql", "poet=/a/p=q"],
        ['{"name": "sql", "path": "/a/sql", "base_model_name": "b"}', {"name": "poet", "path": "/a/p=q"}],
        {"sql": "/a/sql", "poet": "/a/p=q"},
    ],
)
def test_sources_are_written_as_for_vllm_or_as_an_object(value: Any) -> None:
    assert read_sources(value) == (AdapterSource("sql", "/a/sql"), AdapterSource("poet", "/a/p=q"))


def test_one_source_alone() -> None:
    assert read_sources("sql=/a") == read_sources({"name": "sql", "path": "/a"}) == (AdapterSource("sql", "/a"),)


@pytest.mark.parametrize(
    "value",
    [["sql"], ["=/a"], ["sql="], [7], ['{"name": 3}'], ['{"name'], ["a=/a", "a=/b"], ["\n=/a"], {"x" * 257: "/a"}],
    ids=str,
)
def test_what_names_no_adapter_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"lora_modules|name of an adapter"):
        read_sources(value)


def test_the_id_is_that_of_a_name_and_a_content(tmp_path: Path) -> None:
    one, copy = (write_adapter(tmp_path / name) for name in ("one", "copy"))
    found = adapter_id(AdapterSource("sql", str(one)))
    assert 0 < found < 2**31
    assert adapter_id(AdapterSource("sql", str(copy))) == found
    assert adapter_id(AdapterSource("poet", str(one))) != found
    changed = write_adapter(tmp_path / "changed", fill=2.0)
    assert adapter_id(AdapterSource("sql", str(changed))) != found


def test_the_table_as_json_and_back() -> None:
    adapters = [Adapter("sql", 7, "/a")]
    assert from_json(to_json(adapters)) == tuple(adapters)
    assert from_json("") == from_json("{}") == from_json('[{"name": 3, "id": 4}, 5]') == ()


def test_an_adapter_that_fits(tmp_path: Path) -> None:
    check_adapter(write_adapter(tmp_path / "a"), write_base(tmp_path / "base"), 8)


def test_names_that_the_engine_maps_are_left_to_it(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", module="model.language_model.layers.0.self_attn.q_proj", inputs=99)
    check_adapter(adapter, write_base(tmp_path / "base"), 8)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"rank_pattern": [8]}, "rank_pattern that is not an object"),
        ({"r": 16}, "rank 16, above the limit of 8"),
        ({"rank_pattern": {"q_proj": 9}}, "rank 9, above the limit"),
        ({"r": 0}, "no usable rank"),
        ({"r": "8"}, "no usable rank"),
        ({"peft_type": "IA3"}, "type IA3"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": [8]}, "alpha_pattern that is not an object"),
        ({"alpha_pattern": {"q_proj": "8"}}, "alpha_pattern with another value"),
        ({"lora_bias": True}, "more than a LoRA adapter .lora_bias"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "lora_ga"}, "changed weights of its base .init_lora_weights lora_ga"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed weights of its base .init_lora_weights pissa_niter_4"),
    ],
)
def test_a_config_that_cannot_be_served(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_adapter(write_adapter(tmp_path / "a", **config), write_base(tmp_path / "base"), 8)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"inputs": 32}, "has 32 inputs and 24 outputs, that of base 16 and 24"),
        ({"outputs": 32}, "has 16 inputs and 32 outputs"),
        ({"layers": 3}, "base has no model.layers.2"),
    ],
)
def test_an_adapter_of_another_base(tmp_path: Path, shape: dict[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_adapter(write_adapter(tmp_path / "a", **shape), write_base(tmp_path / "base"), 8)


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    base, adapter = write_base(tmp_path / "base"), tmp_path / "a"
    with pytest.raises(ValueError, match="there is no folder"):
        check_adapter(adapter, base)
    adapter.mkdir()
    with pytest.raises(ValueError, match=r"no adapter_config\.json"):
        check_adapter(adapter, base)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        check_adapter(adapter, base)
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 8}))
    with pytest.raises(ValueError, match="no file"):
        check_adapter(adapter, base)
    weights = write_adapter(tmp_path / "whole") / "adapter_model.safetensors"
    (adapter / "adapter_model.safetensors").write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match="damaged or not wholly copied"):
        check_adapter(adapter, base)
    save_file({"other": np.zeros((2, 2), np.float32)}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="no LoRA weights"):
        check_adapter(adapter, base)
    save_file({f"base_model.model.{MODULE}.lora_A.weight": np.zeros((8, 16), np.float32)}, adapter / weights.name)
    with pytest.raises(ValueError, match="do not belong together"):
        check_adapter(adapter, base)
