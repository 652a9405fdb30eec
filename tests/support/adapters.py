# SPDX-License-Identifier: Apache-2.0
"""Random LoRA adapters of a checkpoint, made by PEFT."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def make_adapter(base: Path, folder: Path, seed: int, rank: int = 8, targets: tuple[str, ...] = TARGETS) -> Path:
    """Write an adapter that changes the base's answers; always the same for a seed."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def greedy_ids(base: Path, adapter: Path | None, prompt_ids: list[int], count: int) -> list[int]:
    """Greedy ids by transformers, with PEFT if there is an adapter; no id ends the answer."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    ids = torch.tensor([prompt_ids])
    answer = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, eos_token_id=None
    )
    return answer[0, len(prompt_ids) :].tolist()
