# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters in PEFT's format and a base of a few matrices, written without PEFT."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

INPUTS, OUTPUTS, LAYERS, RANK = 16, 24, 2, 8
MODULE = "model.layers.0.self_attn.q_proj"


def write_base(folder: Path) -> Path:
    """Write the weights of a base with LAYERS layers."""
    folder.mkdir()
    names = [MODULE.replace("0", str(layer)) + ".weight" for layer in range(LAYERS)]
    save_file({name: np.zeros((OUTPUTS, INPUTS), np.float32) for name in names}, folder / "model.safetensors")
    return folder


def write_adapter(
    folder: Path,
    *,
    module: str = MODULE,
    inputs: int = INPUTS,
    outputs: int = OUTPUTS,
    layers: int = LAYERS,
    fill: float = 1.0,
    **config: Any,
) -> Path:
    """Write an adapter of the module in each layer. config: fields of its adapter_config.json."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 16, "target_modules": ["q_proj"], **config})
    )
    weights = {}
    for layer in range(layers):
        name = "base_model.model." + module.replace("0", str(layer))
        weights[f"{name}.lora_A.weight"] = np.full((RANK, inputs), fill, np.float32)
        weights[f"{name}.lora_B.weight"] = np.full((outputs, RANK), fill, np.float32)
    save_file(weights, folder / "adapter_model.safetensors")
    return folder
