# SPDX-License-Identifier: Apache-2.0
"""Tiny random vision towers of transformers, and their `vision/` folders as the splitter writes them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, InternVLConfig, InternVLForConditionalGeneration

from vision.towers.internvit import InternVit, InternVitConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZE = 56
# The two published shapes: InternViT-300M's and InternViT-6B's.
VARIANTS: dict[str, dict[str, Any]] = {
    "300m": {"norm_type": "layer_norm", "attention_bias": True, "use_qk_norm": False},
    "6b": {"norm_type": "rms_norm", "attention_bias": False, "use_qk_norm": True},
}
TEXT = {"hidden_size": 40, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 64}
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def random_weights(model: torch.nn.Module, seed: int = 3) -> None:
    """Randomise every parameter, also those of norms and biases, so that a forgotten tensor is noticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn(parameter.shape, generator=generator))


def random_tiles(count: int, size: int = SIZE, seed: int = 5) -> torch.Tensor:
    """Draw tiles, uint8 [count, size, size, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def internvl(variant: str) -> InternVLForConditionalGeneration:
    """Create a random float32 InternVL of transformers."""
    vision = {
        **VISION,
        **VARIANTS[variant],
        "image_size": [SIZE, SIZE],
        "patch_size": [14, 14],
        "use_mean_pooling": True,
        "layer_norm_eps": 1e-6,
    }
    config = InternVLConfig(vision_config=vision, text_config={"model_type": "qwen2", "num_key_value_heads": 2, **TEXT})
    model = InternVLForConditionalGeneration(config).eval()
    random_weights(model)
    return model


def internvit_config(variant: str, **changes: Any) -> dict[str, Any]:
    """The vision/config.json of `internvl(variant)`."""
    flags = VARIANTS[variant]
    return {
        "model_type": "internvit",
        "family": "internvl2_5",
        **VISION,
        "num_channels": 3,
        "image_size": SIZE,
        "patch_size": 14,
        "hidden_act": "gelu",
        "norm_type": flags["norm_type"],
        "layer_norm_eps": 1e-6,
        "qkv_bias": flags["attention_bias"],
        "qk_normalization": flags["use_qk_norm"],
        "downsample_ratio": 0.5,
        "llm_hidden_size": TEXT["hidden_size"],
        "dtype": "float32",
        "image_mean": MEAN,
        "image_std": STD,
        **changes,
    }


# Name within a layer in transformers -> in vision/model.safetensors.
LAYER_NAMES = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "mlp": "mlp",
}
OTHER_NAMES = {
    "vision_tower.embeddings.cls_token": "embeddings.class_embedding",
    "vision_tower.embeddings.position_embeddings": "embeddings.position_embedding",
    "vision_tower.embeddings.patch_embeddings.projection": "embeddings.patch_embedding",
    "multi_modal_projector.layer_norm": "projector.norm",
    "multi_modal_projector.linear_1": "projector.fc1",
    "multi_modal_projector.linear_2": "projector.fc2",
}


def canonical_tensors(model: InternVLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Convert transformers' tensors, which have separate q, k and v, to those of vision/model.safetensors."""
    given = {name: tensor for name, tensor in model.model.state_dict().items() if not name.startswith("language_model")}
    tensors: dict[str, torch.Tensor] = {}
    for kind in ("weight", "bias"):
        for layer in range(VISION["num_hidden_layers"]):
            names = [f"vision_tower.encoder.layer.{layer}.attention.{part}_proj.{kind}" for part in "qkv"]
            if names[0] in given:
                tensors[f"layers.{layer}.attn.qkv.{kind}"] = torch.cat([given.pop(name) for name in names])
    for name, tensor in given.items():
        tensors[_canonical(name)] = tensor
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def _canonical(name: str) -> str:
    prefix, _, rest = name.partition("encoder.layer.")
    names, head = (LAYER_NAMES, "") if rest else (OTHER_NAMES, "")
    if rest:
        number, _, name = rest.partition(".")
        head = f"layers.{number}."
    for theirs, ours in names.items():
        if name == theirs or name.startswith(f"{theirs}."):
            return head + ours + name[len(theirs) :]
    raise AssertionError(f"no canonical name for {prefix}{name}")


def write_internvit(folder: Path, variant: str, **changes: Any) -> InternVLForConditionalGeneration:
    """Write a `vision/` folder in `folder`; returns the model of transformers with the same weights."""
    model = internvl(variant)
    write_vision(folder, internvit_config(variant, **changes), canonical_tensors(model))
    return model


# InternViT-300M with the projector of InternVL2.5-8B.
INTERNVIT_300M = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "image_size": 448,
    "llm_hidden_size": 4096,
}


def write_internvit_300m(folder: Path, layers: int) -> None:
    """Write a `vision/` folder of the published width with random float32 weights, 0.05 GB per layer."""
    config = internvit_config("300m", **INTERNVIT_300M, num_hidden_layers=layers)
    with torch.device("meta"):
        shapes = {
            name: tensor.shape for name, tensor in InternVit(InternVitConfig.from_json(config)).state_dict().items()
        }
    # As published, before the normalisation is folded into it.
    shapes["embeddings.patch_embedding.weight"] = torch.Size((1024, 3, 14, 14))
    generator = torch.Generator().manual_seed(7)
    tensors = {name: torch.empty(shape).uniform_(-0.03, 0.03, generator=generator) for name, shape in shapes.items()}
    write_vision(folder, config, tensors)


def write_vision(folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write vision/config.json and vision/model.safetensors."""
    (folder / "vision").mkdir(parents=True, exist_ok=True)
    (folder / "vision" / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "vision" / "model.safetensors")


def gemma3() -> Gemma3ForConditionalGeneration:
    """Create a random float32 Gemma 3 of transformers."""
    vision = {**VISION, "image_size": SIZE, "patch_size": 14, "vision_use_head": False}
    text = {**TEXT, "num_key_value_heads": 1, "head_dim": 16}
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(vision_config=vision, text_config=text, mm_tokens_per_image=4)
    ).eval()
    random_weights(model)
    return model


def write_siglip(folder: Path) -> Gemma3ForConditionalGeneration:
    """Write a `vision/` folder with Gemma 3's published tensor names; returns the model with the same weights."""
    model = gemma3()
    config = {
        **model.config.vision_config.to_dict(),
        "model_type": "siglip_gemma3",
        "mm_tokens_per_image": 4,
        "llm_hidden_size": TEXT["hidden_size"],
        "dtype": "float32",
    }
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor.clone()
        for name, tensor in model.model.state_dict().items()
        if name.startswith(("vision_tower.", "multi_modal_projector."))
    }
    write_vision(folder, config, tensors)
    return model


def normalised(tiles: torch.Tensor, mean: Any = MEAN, std: Any = STD) -> torch.Tensor:
    """Compute the float32 pixel values [n, 3, s, s] of an image processor."""
    pixels = tiles.permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
