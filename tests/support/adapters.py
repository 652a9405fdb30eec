# SPDX-License-Identifier: Apache-2.0
"""Random LoRA adapters of a checkpoint, made by PEFT."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapter(base: Path, folder: Path, seed: int, rank: int = 8, targets: tuple[str, ...] = TARGETS) -> Path:
    """Write an adapter that changes the base's answers; always the same for a seed."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder
