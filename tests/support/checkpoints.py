# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints with real tokenizers, one per language-model family, made by transformers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

# Small enough to build in a second, with a head size that every attention kernel supports.
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    # Larger than the usual 0.02, so that logits differ enough for rounding not to decide the next token.
    "initializer_range": 0.2,
}
QWEN_IDS = {"vocab_size": 151936, "bos_token_id": None, "eos_token_id": 151645, "pad_token_id": 151643}
LLAMA_IDS = {"vocab_size": 49152, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
GEMMA_IDS = {"vocab_size": 262208, "bos_token_id": 2, "eos_token_id": [1, 106], "pad_token_id": 0}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "decoder_sparse_step": 1}
# One layer with sliding and one with full attention; the window is shorter than the tests' prompts.
SLIDING = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "query_pre_attn_scalar": 64}

# name -> (tokenizer, model class, config)
FAMILIES: dict[str, tuple[str, type[PreTrainedModel], Callable[[], PretrainedConfig]]] = {
    "qwen2": ("qwen3", Qwen2ForCausalLM, lambda: Qwen2Config(**SHAPE, **QWEN_IDS)),
    "qwen3": ("qwen3", Qwen3ForCausalLM, lambda: Qwen3Config(**SHAPE, **QWEN_IDS)),
    "qwen3_moe": ("qwen3", Qwen3MoeForCausalLM, lambda: Qwen3MoeConfig(**SHAPE, **QWEN_IDS, **MOE)),
    "llama": ("smollm2", LlamaForCausalLM, lambda: LlamaConfig(**SHAPE, **LLAMA_IDS)),
    "gemma3_text": ("gemma3", Gemma3ForCausalLM, lambda: Gemma3TextConfig(**SHAPE, **GEMMA_IDS, **SLIDING)),
}


def make_checkpoint(family: str, tokenizer_dir: Path, folder: Path) -> Path:
    """Write a tiny random checkpoint in float32 with its tokenizer's files; always the same, as it is seeded."""
    _, model_class, config = FAMILIES[family]
    torch.manual_seed(7)
    model = model_class(config()).to(torch.float32)
    if model.config.tie_word_embeddings:
        # With large tied embeddings a random model only repeats its last token.
        with torch.no_grad():
            model.get_input_embeddings().weight.mul_(0.02)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (tokenizer_dir / name).exists():
            shutil.copy(tokenizer_dir / name, folder / name)
    return folder
