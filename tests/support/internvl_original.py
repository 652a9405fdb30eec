# SPDX-License-Identifier: Apache-2.0
"""Write a model of transformers in InternVL's original layout, derived from published files, not from our own code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import InternVLConfig, InternVLForConditionalGeneration, PretrainedConfig

from tests.support.checkpoints import SHAPE

ARCHITECTURES = {"internlm2": "InternLM2ForCausalLM", "internlm3": "InternLM3ForCausalLM"}
# What the configurations of mixtures of experts have beyond a dense model's.
EXPERTS = ("num_experts", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size", "decoder_sparse_step")


def write_original(folder: Path, model: InternVLForConditionalGeneration, saved: Path, language: str) -> None:
    """Write config.json and model.safetensors.

    saved: the model's file in the layout of transformers. language: a key of LANGUAGES; internlm2 is a Llama with its
    names, internlm3 one with its configuration.
    """
    tensors = dict(_original_tensors(model, load_file(saved), language))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    config = json.dumps(_original_config(model.config, language), indent=2)
    (folder / "config.json").write_text(config, encoding="utf-8")


def _original_tensors(
    model: InternVLForConditionalGeneration, saved: dict[str, torch.Tensor], language: str
) -> Iterator[tuple[str, torch.Tensor]]:
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    yield "vision_model.embeddings.class_embedding", tower.embeddings.cls_token
    yield "vision_model.embeddings.position_embedding", tower.embeddings.position_embeddings
    patches = tower.embeddings.patch_embeddings.projection
    yield from _named("vision_model.embeddings.patch_embedding", patches)
    for index, layer in enumerate(tower.encoder.layer):
        yield from _original_layer(f"vision_model.encoder.layers.{index}", layer)
    for index, module in ((0, projector.layer_norm), (1, projector.linear_1), (3, projector.linear_2)):
        yield from _named(f"mlp1.{index}", module)
    prefix = "language_model."
    text = {name.removeprefix(prefix): value for name, value in saved.items() if name.startswith(prefix)}
    if language == "internlm2":
        text = dict(_as_internlm2(text, model.config.text_config))
    yield from ((f"language_model.{name}", value) for name, value in text.items())


def _original_layer(prefix: str, layer: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    attention = layer.attention
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    yield f"{prefix}.attn.qkv.weight", torch.cat([projection.weight for projection in projections])
    if attention.q_proj.bias is not None:
        yield f"{prefix}.attn.qkv.bias", torch.cat([projection.bias for projection in projections])
    yield f"{prefix}.ls1", layer.lambda_1
    yield f"{prefix}.ls2", layer.lambda_2
    modules = {
        "norm1": layer.layernorm_before,
        "norm2": layer.layernorm_after,
        "attn.proj": attention.projection_layer,
        "attn.q_norm": attention.q_norm,
        "attn.k_norm": attention.k_norm,
        "mlp.fc1": layer.mlp.fc1,
        "mlp.fc2": layer.mlp.fc2,
    }
    for name, module in modules.items():
        yield from _named(f"{prefix}.{name}", module)


def _named(prefix: str, module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((f"{prefix}.{name}", value) for name, value in module.named_parameters())


def _as_internlm2(text: dict[str, torch.Tensor], config: PretrainedConfig) -> Iterator[tuple[str, torch.Tensor]]:
    yield "model.tok_embeddings.weight", text["model.embed_tokens.weight"]
    yield "model.norm.weight", text["model.norm.weight"]
    yield "output.weight", text["lm_head.weight"]
    for index in range(config.num_hidden_layers):
        layer = f"model.layers.{index}"
        query, key, value = (text[f"{layer}.self_attn.{kind}_proj.weight"] for kind in "qkv")
        head_dim = config.head_dim
        per_group = config.num_attention_heads // config.num_key_value_heads
        rows = []
        for group in range(config.num_key_value_heads):
            rows += [
                query[group * per_group * head_dim : (group + 1) * per_group * head_dim],
                key[group * head_dim : (group + 1) * head_dim],
                value[group * head_dim : (group + 1) * head_dim],
            ]
        yield f"{layer}.attention.wqkv.weight", torch.cat(rows)
        yield f"{layer}.attention.wo.weight", text[f"{layer}.self_attn.o_proj.weight"]
        yield f"{layer}.attention_norm.weight", text[f"{layer}.input_layernorm.weight"]
        yield f"{layer}.ffn_norm.weight", text[f"{layer}.post_attention_layernorm.weight"]
        for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down")):
            yield f"{layer}.feed_forward.{theirs}.weight", text[f"{layer}.mlp.{ours}_proj.weight"]


def _original_config(config: InternVLConfig, language: str) -> dict[str, Any]:
    """The config with all keys of OpenGVLab/InternVL2_5-2B, including unused ones."""
    vision, text = config.vision_config, config.text_config
    rope = text.rope_parameters
    scaling = {key: value for key, value in rope.items() if key not in ("rope_type", "rope_theta")}
    kept = (
        *SHAPE,
        *(name for name in EXPERTS if hasattr(text, name)),
        "vocab_size",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "hidden_act",
        "rms_norm_eps",
    )
    llm = {key: getattr(text, key) for key in kept}
    if language == "internlm2":
        del llm["head_dim"]
        llm |= {"bias": False, "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}}
    if language == "internlm3":
        llm |= {"bias": False, "qkv_bias": False}
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "downsample_ratio": config.downsample_ratio,
        "dynamic_image_size": True,
        "force_image_size": vision.image_size[0],
        "llm_config": {
            **llm,
            "architectures": [ARCHITECTURES.get(language, text.architectures)],
            "attn_implementation": "flash_attention_2",
            "do_sample": False,
            "max_length": 20,
            "model_type": language,
            "rope_scaling": {"type": rope["rope_type"], **scaling} if rope["rope_type"] != "default" else None,
            "rope_theta": rope["rope_theta"],
            "temperature": 1.0,
            "tie_word_embeddings": config.tie_word_embeddings,
            "top_k": 50,
            "torch_dtype": "bfloat16",
            "use_bfloat16": True,
        },
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "torch_dtype": "float32",
        "transformers_version": None,
        "use_thumbnail": True,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "attention_dropout": 0.0,
            "drop_path_rate": 0.0,
            "hidden_act": vision.hidden_act,
            "hidden_size": vision.hidden_size,
            "image_size": vision.image_size[0],
            "intermediate_size": vision.intermediate_size,
            "layer_norm_eps": vision.layer_norm_eps,
            "model_type": "intern_vit_6b",
            "norm_type": vision.norm_type,
            "num_attention_heads": vision.num_attention_heads,
            "num_channels": 3,
            "num_hidden_layers": vision.num_hidden_layers,
            "patch_size": vision.patch_size[0],
            "qk_normalization": vision.use_qk_norm,
            "qkv_bias": vision.attention_bias,
        },
    }
