# SPDX-License-Identifier: Apache-2.0
"""Random InternVL checkpoints: what reads published ones reads them."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from common.checkpoint import read_json
from scripts.bench import random_internvl
from scripts.split.splitter import split_checkpoint


def test_a_random_checkpoint_reads_like_a_published_one(monkeypatch, tmp_path: Path, qwen3_tokenizer_dir: Path):
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(random_internvl, "VISION", random_internvl.VISION | small | {"image_size": 56})
    monkeypatch.setattr(random_internvl, "SIZES", {"tiny": (64, 96, 1, 2, 1)})
    random_internvl.write(tmp_path / "whole", qwen3_tokenizer_dir, "tiny")

    config = AutoConfig.from_pretrained(tmp_path / "whole", trust_remote_code=True)
    assert (config.llm_config.hidden_size, config.vision_config.image_size) == (64, 56)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "whole")
    assert tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>") == len(tokenizer) - 3
    # Splitting compares every tensor with what the language model and the tower expect.
    split = split_checkpoint(tmp_path / "whole", tmp_path / "split")
    assert read_json(split / "config.json")["architectures"] == ["Qwen2ForCausalLM"]
    assert read_json(split / "vision" / "config.json")["llm_hidden_size"] == 64
