# SPDX-License-Identifier: Apache-2.0
"""The fixed choices of the demo model: weights file, sizes, special tokens and system prompt."""

from pathlib import Path
from typing import Any

# The trained tensors: vision tower, projector and the adapter of the language model.
WEIGHTS = Path(__file__).with_name("weights.safetensors")

# SmolLM2's default, so that chats without pictures are answered as before.
SYSTEM_PROMPT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

# Special tokens of SmolLM2 that no chat uses, and their new names.
RENAMED_TOKENS = {"<issue_start>": "<img>", "<issue_closed>": "</img>", "<reponame>": "<IMG_CONTEXT>"}

TILE = 224
PATCH = 14
MIN_TILES, MAX_TILES = 1, 4
PATCHES_PER_SIDE = TILE // PATCH
TOKENS_PER_TILE = (PATCHES_PER_SIDE // 2) ** 2

# `vision/config.json` of the served folder. Mean and standard deviation are ImageNet's, as in the InternVL family.
VISION_CONFIG: dict[str, Any] = {
    "model_type": "internvit",
    "family": "internvl2_5",
    "system_prompt": SYSTEM_PROMPT,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_channels": 3,
    "image_size": TILE,
    "patch_size": PATCH,
    "hidden_act": "gelu",
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "qk_normalization": False,
    "downsample_ratio": 0.5,
    "llm_hidden_size": 576,
    "dtype": "bfloat16",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "min_dynamic_patch": MIN_TILES,
    "max_dynamic_patch": MAX_TILES,
    "use_thumbnail": True,
    "image_token": "<IMG_CONTEXT>",  # nosec B105 # a token's or a value's text, no secret
    "image_start": "<img>",
    "image_end": "</img>",
}
LORA_RANK = 8
LORA_SCALE = 2.0
