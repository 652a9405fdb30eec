# SPDX-License-Identifier: Apache-2.0
"""The vision part of the InternVL family under this project's names: vision/config.json and the expected tensors."""

from collections.abc import Mapping
from typing import Any

from scripts.split.config import read
from scripts.split.errors import SplitError
from scripts.split.plan import Shape
from scripts.split.source import Source

IMAGE_TOKENS = {"image_token": "<IMG_CONTEXT>", "image_start": "<img>", "image_end": "</img>"}  # nosec B105 # a token's or a value's text, no secret
# ImageNet's mean and deviation, with which the family was trained.
IMAGE_MEAN, IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_SHAPED_BY = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def canonical_config(vision: Mapping[str, Any], image_size: Any, qkv: tuple[bool, bool], **rest: Any) -> dict[str, Any]:
    """Build vision/config.json, still without the dtype and the language model's width.

    vision: the checkpoint's configuration of the tower. qkv: whether queries, keys and values have biases, and
    whether queries and keys are normalised. rest: further keys, written unchanged.
    Raises SplitError for a tower that this project's forward pass cannot compute.
    """
    missing = [key for key in (*_SHAPED_BY, "patch_size") if key not in vision]
    if missing:
        raise SplitError(f"vision_config in config.json lacks {', '.join(missing)}.")
    if vision.get("hidden_act", "gelu") != "gelu":
        raise SplitError(f"vision_config.hidden_act is '{vision['hidden_act']}'; only gelu is known.")
    norm = vision.get("norm_type", "layer_norm")
    if norm not in ("layer_norm", "rms_norm"):
        raise SplitError(f"vision_config.norm_type is '{norm}'; known: layer_norm, rms_norm.")
    return {
        "model_type": "internvit",
        "family": "internvl2_5",
        **{key: vision[key] for key in _SHAPED_BY},
        "num_channels": vision.get("num_channels", 3),
        "image_size": _side(image_size, "image_size"),
        "patch_size": _side(vision["patch_size"], "patch_size"),
        "hidden_act": "gelu",
        "norm_type": norm,
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-6),
        "qkv_bias": qkv[0],
        "qk_normalization": qkv[1],
        **rest,
        **IMAGE_TOKENS,
    }


def tile_settings(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of tiling and normalisation (of values 0..1): the image processor's file, `config`, or the defaults."""
    processor = read(source.folder / "processor_config.json").get("image_processor") or {}
    processor = {**processor, **read(source.folder / "preprocessor_config.json")}
    return {
        "image_mean": processor.get("image_mean", IMAGE_MEAN),
        "image_std": processor.get("image_std", IMAGE_STD),
        "min_dynamic_patch": config.get("min_dynamic_patch", processor.get("min_patches", 1)),
        "max_dynamic_patch": config.get("max_dynamic_patch", processor.get("max_patches", 12)),
        "use_thumbnail": config.get("use_thumbnail", True),
    }


def expected_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    """Shapes of all tensors of vision/model.safetensors, by the canonical config."""
    h, patch = config["hidden_size"], config["patch_size"]
    merged, out = h * round(1 / config["downsample_ratio"]) ** 2, config["llm_hidden_size"]
    shapes: dict[str, Shape] = {
        "embeddings.class_embedding": (1, 1, h),
        "embeddings.patch_embedding.weight": (h, config["num_channels"], patch, patch),
        "embeddings.patch_embedding.bias": (h,),
        "embeddings.position_embedding": (1, 1 + (config["image_size"] // patch) ** 2, h),
        "projector.norm.weight": (merged,),
        "projector.norm.bias": (merged,),
        "projector.fc1.weight": (out, merged),
        "projector.fc1.bias": (out,),
        "projector.fc2.weight": (out, out),
        "projector.fc2.bias": (out,),
    }
    layer = _layer_shapes(config)
    layers = range(config["num_hidden_layers"])
    return shapes | {f"layers.{index}.{name}": shape for index in layers for name, shape in layer.items()}


def _layer_shapes(config: Mapping[str, Any]) -> dict[str, Shape]:
    h, middle = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, Shape] = {
        "norm1.weight": (h,),
        "norm2.weight": (h,),
        "attn.qkv.weight": (3 * h, h),
        "attn.proj.weight": (h, h),
        "attn.proj.bias": (h,),
        "ls1": (h,),
        "ls2": (h,),
        "mlp.fc1.weight": (middle, h),
        "mlp.fc1.bias": (middle,),
        "mlp.fc2.weight": (h, middle),
        "mlp.fc2.bias": (h,),
    }
    if config["norm_type"] == "layer_norm":
        shapes |= {"norm1.bias": (h,), "norm2.bias": (h,)}
    if config["qkv_bias"]:
        shapes["attn.qkv.bias"] = (3 * h,)
    if config["qk_normalization"]:
        shapes |= {"attn.q_norm.weight": (h,), "attn.k_norm.weight": (h,)}
    return shapes


def _side(value: Any, key: str) -> int:
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise SplitError(f"vision_config.{key} is {value}; only squares are known.")
    return int(sides.pop())
