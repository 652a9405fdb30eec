# SPDX-License-Identifier: Apache-2.0
"""Gemma 3's vision tower: SigLIP and its projector from transformers, for uint8 tiles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Gemma3Config, SiglipVisionConfig, SiglipVisionModel
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

from vision.towers.tower import Tower
from vision.towers.weights import assign, read_tensors

# From Gemma 3's published image processor.
MEAN = STD = 0.5
# Prefixes of the tower's tensors: in published checkpoints and in transformers' module.
_PUBLISHED, _OWN = "vision_tower.vision_model.", "vision_tower."


class SiglipGemma3(Tower):
    """SigLIP with Gemma 3's projector. Parameters are named as in transformers."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        # Published towers have no pooling head, and it would not be used.
        vision = SiglipVisionConfig(**{**config, "model_type": "siglip_vision_model", "vision_use_head": False})
        vision._attn_implementation = "sdpa"
        whole = Gemma3Config(
            vision_config=vision.to_dict(),
            text_config={"hidden_size": config["llm_hidden_size"]},
            mm_tokens_per_image=config["mm_tokens_per_image"],
        )
        self.vision_tower = SiglipVisionModel(vision)
        self.multi_modal_projector = Gemma3MultiModalProjector(whole)

    def modules_to_compile(self) -> list[nn.Module]:
        """List the tower's layers."""
        return list(self.vision_tower.encoder.layers)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Embed uint8 [n, s, s, 3] -> [n, mm_tokens_per_image, llm_hidden]."""
        # Cast first: in TensorRT uint8 is only supported as an input of the network.
        pixels = (tiles.to(torch.float32).permute(0, 3, 1, 2) / 255 - MEAN) / STD
        pixels = pixels.to(self.multi_modal_projector.mm_input_projection_weight.dtype)
        embeddings: torch.Tensor = self.multi_modal_projector(self.vision_tower(pixels).last_hidden_state)
        return embeddings


def load(folder: Path, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> SiglipGemma3:
    """Load the tower with the weights of the vision folder. Raises ValueError if they do not fit the config."""
    missing = sorted({"llm_hidden_size", "mm_tokens_per_image", "image_size", "patch_size"} - config.keys())
    if missing:
        raise ValueError(f"vision tower: config.json lacks {', '.join(missing)}")
    tower = SiglipGemma3(config).to(device)
    tensors = read_tensors(folder, device)
    assign(tower, {name.replace(_PUBLISHED, _OWN): tensor.to(dtype) for name, tensor in tensors.items()})
    return tower
