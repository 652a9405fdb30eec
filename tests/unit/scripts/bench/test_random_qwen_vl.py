# SPDX-License-Identifier: Apache-2.0
"""Random Qwen2.5-VL checkpoints: transformers reads them, and sizes are the published ones."""

from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from scripts.bench import random_qwen_vl


def test_transformers_reads_the_checkpoint(tmp_path: Path, qwen3_tokenizer_dir: Path):
    random_qwen_vl.write(tmp_path / "model", qwen3_tokenizer_dir, "tiny")
    config = AutoConfig.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    picture = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}]
    ids = tokenizer.apply_chat_template(picture, add_generation_prompt=True, return_dict=False)
    assert ids.count(config.image_token_id) == 1


def test_a_published_shape():
    config = random_qwen_vl.config("3B")
    assert config.text_config.rope_parameters["mrope_section"] == [16, 24, 24]
    assert config.vision_config.out_hidden_size == config.text_config.hidden_size == 2048
