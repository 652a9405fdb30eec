# SPDX-License-Identifier: Apache-2.0
"""Splitting Gemma 3: a text checkpoint, and the vision part under its published names."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3ForConditionalGeneration

from scripts.split.errors import SplitError
from scripts.split.splitter import split_checkpoint
from tests.support.vlm_checkpoints import make_gemma3, make_tokenizer, rename_tensors


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gemma")
    return make_gemma3(folder / "vlm", make_tokenizer(folder / "tokenizer"))


def test_the_language_model_is_the_same(gemma: Path, tmp_path: Path) -> None:
    split = split_checkpoint(gemma, tmp_path / "split")
    reference = Gemma3ForConditionalGeneration.from_pretrained(gemma, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(split, dtype="auto").eval()
    assert isinstance(model, Gemma3ForCausalLM)
    assert model.config.tie_word_embeddings
    ids = torch.arange(40)[None] * 7 % 250
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, reference(input_ids=ids).logits)


def test_the_vision_part(gemma: Path, tmp_path: Path) -> None:
    vision = split_checkpoint(gemma, tmp_path / "split") / "vision"
    config = json.loads((vision / "config.json").read_text())
    whole = json.loads((gemma / "config.json").read_text())
    assert config == whole["vision_config"] | {
        "model_type": "siglip_gemma3",
        "mm_tokens_per_image": 256,
        "llm_hidden_size": 128,
        "dtype": "float32",
    }
    published = load_file(gemma / "model.safetensors")
    tensors = load_file(vision / "model.safetensors")
    assert tensors.keys() == {
        name for name in published if name.startswith(("vision_tower.vision_model.", "multi_modal_projector."))
    }
    assert all(torch.equal(value, published[name]) for name, value in tensors.items())


def test_newer_names_and_an_unused_head_give_the_same(gemma: Path, tmp_path: Path) -> None:
    newer = shutil.copytree(gemma, tmp_path / "newer")
    changes = {
        "language_model.model.": "model.language_model.",
        "vision_tower.vision_model.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    }

    def rename(name: str) -> str:
        before = next(before for before in changes if name.startswith(before))
        return changes[before] + name.removeprefix(before)

    rename_tensors(newer, rename)
    tensors = load_file(newer / "model.safetensors")
    save_file(tensors | {"model.vision_tower.head.probe": torch.zeros(1, 1, 64)}, newer / "model.safetensors")
    one, other = split_checkpoint(gemma, tmp_path / "one"), split_checkpoint(newer, tmp_path / "other")
    for file in ("model.safetensors", "vision/model.safetensors"):
        left, right = load_file(one / file), load_file(other / file)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)


def test_configs_as_sparse_as_published_ones(gemma: Path, tmp_path: Path) -> None:
    sparse = shutil.copytree(gemma, tmp_path / "sparse")
    config = json.loads((sparse / "config.json").read_text())
    for key in (
        "attention_bias",
        "bos_token_id",
        "eos_token_id",
        "rms_norm_eps",
        "tie_word_embeddings",
        "model_type",
        "rope_parameters",
    ):
        config["text_config"].pop(key)
    config["text_config"]["rope_scaling"] = {"factor": 8.0, "rope_type": "linear"}
    config = {key: value for key, value in config.items() if key not in ("tie_word_embeddings", "mm_tokens_per_image")}
    (sparse / "config.json").write_text(json.dumps(config | {"eos_token_id": [1, 106]}))
    split = split_checkpoint(sparse, tmp_path / "split")
    written = json.loads((split / "config.json").read_text())
    assert (written["model_type"], written["eos_token_id"], written["tie_word_embeddings"]) == (
        "gemma3_text",
        [1, 106],
        True,
    )
    rope = AutoModelForCausalLM.from_pretrained(split).config.rope_parameters
    assert rope["full_attention"] == {"factor": 8.0, "rope_type": "linear", "rope_theta": 1_000_000.0}


def test_a_missing_vision_tensor_is_named(gemma: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(gemma, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors.pop("vision_tower.vision_model.post_layernorm.bias")
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(SplitError, match=r"missing: vision_tower\.vision_model\.post_layernorm\.bias"):
        split_checkpoint(broken, tmp_path / "split")
