# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import pytest

from common.checkpoint import Checkpoint

QWEN = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "eos_token_id": 151645,
}


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_plain_language_model(tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(str(write(tmp_path, config=QWEN)))
    assert checkpoint == Checkpoint(tmp_path, "qwen3", ("Qwen3ForCausalLM",), 151936, 40960, (151645,), 151645)


def test_generation_config_wins_over_config(tmp_path: Path) -> None:
    generation = {"eos_token_id": [151645, 151643], "pad_token_id": 151643}
    checkpoint = Checkpoint.load(write(tmp_path, config=QWEN, generation_config=generation))
    assert checkpoint.end_ids == (151645, 151643)
    assert checkpoint.pad_id == 151643


@pytest.mark.parametrize("key", ["text_config", "llm_config", "language_config"])
def test_the_text_config_of_a_vision_language_model(tmp_path: Path, key: str) -> None:
    config = {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], key: QWEN}
    checkpoint = Checkpoint.load(write(tmp_path, config=config))
    assert checkpoint.model_type == "internvl_chat"
    assert checkpoint.architectures == ("InternVLChatModel",)
    assert (checkpoint.vocab_size, checkpoint.max_position_embeddings) == (151936, 40960)
    assert checkpoint.end_ids == (151645,)


def test_sizes_that_a_published_gemma3_config_leaves_to_its_class(tmp_path: Path) -> None:
    config = {"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": {"model_type": "gemma3_text"}}
    checkpoint = Checkpoint.load(write(tmp_path, config=config))
    assert (checkpoint.vocab_size, checkpoint.max_position_embeddings) == (262208, 131072)
    assert checkpoint.end_ids == (1, 106)


@pytest.mark.parametrize("token", ["<|im_end|>", {"content": "<|im_end|>", "special": True}])
def test_end_id_from_the_tokenizer_where_no_config_names_one(tmp_path: Path, token: Any) -> None:
    config = {key: value for key, value in QWEN.items() if key != "eos_token_id"}
    added = [{"id": 7, "content": "<|endoftext|>"}, {"id": 9, "content": "<|im_end|>"}]
    tokenizer_config = {"eos_token": token, "pad_token": "<|endoftext|>"}
    files = {"config": config, "tokenizer": {"added_tokens": added}, "tokenizer_config": tokenizer_config}
    checkpoint = Checkpoint.load(write(tmp_path, **files))
    assert (checkpoint.end_ids, checkpoint.pad_id) == ((9,), 7)


def test_wrong_paths_and_values_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'/no/such/folder' is not a directory"):
        Checkpoint.load("/no/such/folder")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        Checkpoint.load(tmp_path)
    with pytest.raises(ValueError, match=r"vocab_size in .* must be a positive integer, not 'many'"):
        Checkpoint.load(write(tmp_path, config={**QWEN, "vocab_size": "many"}))
    with pytest.raises(ValueError, match=r"max_position_embeddings in .* not None"):
        Checkpoint.load(write(tmp_path, config={"model_type": "new", "vocab_size": 5, "eos_token_id": 1}))
    with pytest.raises(ValueError, match="names no eos_token_id"):
        Checkpoint.load(write(tmp_path, config={**QWEN, "eos_token_id": None}))
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="is not valid JSON"):
        Checkpoint.load(tmp_path)
