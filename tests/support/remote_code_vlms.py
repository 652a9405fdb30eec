# SPDX-License-Identifier: Apache-2.0
"""Kimi-VL and Phi-4-multimodal, whose published checkpoints bring the code of their processors.

transformers has the models under other names, and in other layouts. Its processors stand for that code, in the fakes
of tests/fakes/checkpoint_code: what is tested is how a checkpoint with code is served, and vLLM's part of the family.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PretrainedConfig

from tests.support.tiny_vlm import HALF, PREPROCESSOR, PROCESSOR, TinyVlm, TokenIds, parts_template

_CODE = Path(__file__).parent.parent / "fakes" / "checkpoint_code"
_WEIGHTS = "model.safetensors"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


def _copy(source: Path, target: Path, *names: str) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copy(source / name, target / name)


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2), encoding="utf-8")


def _write_processor(
    folder: Path, family: str, image_processor: str, processor: str, numbers: Mapping[str, Any]
) -> None:
    """Write the processor's files, with its code."""
    code = f"processing_{family}"
    _copy(_CODE, folder, f"{code}.py")
    auto_map = {"AutoProcessor": f"{code}.{processor}", "AutoImageProcessor": f"{code}.{image_processor}"}
    common = {"processor_class": processor, "auto_map": auto_map}
    _write(folder / PREPROCESSOR, {"image_processor_type": image_processor, **common, **numbers})
    _write(folder / PROCESSOR, common)


# Kimi-VL: MoonViT and DeepSeek V3. In transformers it is Kimi-K2.5, whose MoonViT takes videos too.

_KIMI_TOKENS = ("<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|media_start|>", "<|media_begin|>")
_KIMI_TOKENS += ("<|media_content|>", "<|media_end|>", "<|media_pad|>", "<|kimi_k25_video_placeholder|>")
_KIMI_VISION = {
    "patch_size": 14,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
}
_KIMI_NUMBERS = {"patch_size": 14, **HALF}
_KIMI_LIMIT = 64


def _kimi(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    # Sizes that vLLM's attention over latent vectors has on CPUs.
    latent = {
        "kv_lora_rank": 512,
        "q_lora_rank": None,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 64,
        "v_head_dim": 64,
    }
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 64}
    experts |= {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 2.0}
    text = {name: value for name, value in text.items() if name != "head_dim"} | {"num_key_value_heads": 2}
    return transformers.Kimi_K25Config(
        text_config={"model_type": "deepseek_v3", **text, **latent, **experts},
        vision_config=_KIMI_VISION | {"pos_emb_height": 8, "pos_emb_width": 8},
        projection_hidden_size=64,
        image_token_id=ids("<|media_pad|>"),
        video_token_id=ids("<|kimi_k25_video_placeholder|>"),
        vision_start_token_id=ids("<|media_begin|>"),
        vision_end_token_id=ids("<|media_end|>"),
        tie_word_embeddings=False,
    )


# Parts of tensors' names in transformers, and in published checkpoints; in this order.
_KIMI_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.mm_projector.in_proj.", "multi_modal_projector.linear_1."),
    ("model.mm_projector.out_proj.", "multi_modal_projector.linear_2."),
    ("model.mm_projector.", "multi_modal_projector."),
    ("patch_embed.pos_emb.position_embeddings", "patch_embed.pos_emb.weight"),
    ("model.vision_tower.final_layernorm.", "vision_tower.encoder.final_layernorm."),
    ("model.vision_tower.layers.", "vision_tower.encoder.blocks."),
    ("model.vision_tower.", "vision_tower."),
    (".norm1.", ".norm0."),
    (".norm2.", ".norm1."),
    (".mlp.fc1.", ".mlp.fc0."),
    (".mlp.fc2.", ".mlp.fc1."),
    (".attn.proj.", ".wo."),
)


def _publish_kimi_tensors(source: Path, target: Path) -> None:
    """transformers cannot write this layout: it renames parts of the language model too."""
    published: dict[str, torch.Tensor] = {}
    tensors = load_file(source / _WEIGHTS)
    for name, tensor in tensors.items():
        for old, new in _KIMI_NAMES:
            name = name.replace(old, new)
        if name.endswith("experts.gate_up_proj"):
            for number, both in enumerate(tensor):
                for kind, one in zip(("gate_proj", "up_proj"), both.chunk(2), strict=True):
                    published[f"{name.removesuffix('gate_up_proj')}{number}.{kind}.weight"] = one.clone()
        elif name.endswith("experts.down_proj"):
            for number, one in enumerate(tensor):
                published[f"{name.removesuffix('down_proj')}{number}.down_proj.weight"] = one.clone()
        elif ".attn.q_proj." in name:
            query, key, value = (tensors[_of_transformers(name).replace("q_proj", f"{part}_proj")] for part in "qkv")
            fused = torch.cat([_rope_in_pairs(query), _rope_in_pairs(key), value])
            published[name.replace("attn.q_proj", "wqkv")] = fused
        elif ".attn." not in name or "self_attn" in name:
            published[name] = tensor.clone()
    save_file(published, target / _WEIGHTS, metadata={"format": "pt"})


def _of_transformers(name: str) -> str:
    return name.replace("vision_tower.encoder.blocks.", "model.vision_tower.layers.")


def _rope_in_pairs(rows: torch.Tensor) -> torch.Tensor:
    """The rows of a projection in the order for rotations of neighbours, where transformers rotates halves of a head."""
    heads = rows.unflatten(0, (int(_KIMI_VISION["num_attention_heads"]), 2, -1))
    return heads.transpose(1, 2).flatten(0, 2).contiguous()


def _publish_kimi(source: Path, target: Path) -> None:
    _copy(source, target, *_TOKENIZER)
    if (source / _WEIGHTS).is_file():
        _publish_kimi_tensors(source, target)
    config = _read(source / "config.json")
    chosen = {"topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True}
    vision = _KIMI_VISION | {"init_pos_emb_height": 8, "init_pos_emb_width": 8, "model_type": "moonvit"}
    published = {
        "architectures": ["KimiVLForConditionalGeneration"],
        "model_type": "kimi_vl",
        "text_config": config["text_config"] | chosen,
        "vision_config": vision,
        "media_placeholder_token_id": config["image_token_id"],
        "tie_word_embeddings": False,
        "dtype": "float32",
    }
    _write(target / "config.json", published)
    numbers = _KIMI_NUMBERS | {"in_token_limit": _KIMI_LIMIT, "merge_kernel_size": [2, 2]}
    _write_processor(target, "kimi_vl", "KimiVLImageProcessor", "KimiVLProcessor", numbers)


# Phi-4-multimodal. vLLM builds its vision part, of 400 million weights, whatever the configuration says.

_PHI_IMAGE, _PHI_AUDIO = "<|endoftext10|>", "<|endoftext11|>"
_PHI_NAMED = {"image_token": _PHI_IMAGE, "audio_token": _PHI_AUDIO}
# The template knows no parts: pictures come before the text.
_PHI_TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _phi(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    text = {name: value for name, value in text.items() if name != "head_dim"}
    return transformers.Phi4MultimodalConfig(**text | {"bos_token_id": text["pad_token_id"]})


def _publish_phi(source: Path, target: Path) -> None:
    _copy(source, target, *_TOKENIZER)
    (target / "chat_template.jinja").write_text(_PHI_TEMPLATE, encoding="utf-8")
    config = _read(source / "config.json")
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    kept += ("num_key_value_heads", "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")
    published = {name: config[name] for name in kept} | {
        "architectures": ["Phi4MMForCausalLM"],
        "model_type": "phi4mm",
        "auto_map": {"AutoConfig": "configuration_phi4mm.Phi4MMConfig"},
        "embd_layer": {"audio_embd_layer": {"compression_rate": 8, "embedding_cls": "audio"}},
    }
    _write(target / "config.json", published)
    _copy(_CODE, target, "configuration_phi4mm.py")
    _write_processor(target, "phi4mm", "Phi4MMImageProcessor", "Phi4MMProcessor", {"dynamic_hd": 4})


REMOTE_CODE_VLMS: dict[str, TinyVlm] = {
    "kimi_vl": TinyVlm(
        "Kimi_K25ForConditionalGeneration",
        _kimi,
        _KIMI_TOKENS,
        {
            PREPROCESSOR: {
                "image_processor_type": "Kimi_K25ImageProcessor",
                "max_patches": _KIMI_LIMIT,
                "size": {"max_height": _KIMI_LIMIT, "max_width": _KIMI_LIMIT},
                **_KIMI_NUMBERS,
            },
            PROCESSOR: {"processor_class": "Kimi_K25Processor"},
        },
        parts_template(
            "<|im_{{ m.role }}|>{{ m.role }}<|im_middle|>",
            "<|im_end|>",
            "<|im_assistant|>assistant<|im_middle|>",
            "<|media_start|>image<|media_content|><|media_pad|><|media_end|>",
        ),
        architecture="KimiVLForConditionalGeneration",
        publish=_publish_kimi,
        code=True,
        seed=9,
    ),
    "phi4mm": TinyVlm(
        "Phi4MultimodalForCausalLM",
        _phi,
        ("<|user|>", "<|assistant|>", "<|end|>", _PHI_IMAGE, _PHI_AUDIO),
        {
            PREPROCESSOR: {"image_processor_type": "Phi4MultimodalImageProcessor", "dynamic_hd": 4},
            PROCESSOR: {"processor_class": "Phi4MultimodalProcessor"},
        },
        # What vLLM makes of the published template: pictures first, then texts, each on a line of its own.
        "{% for m in messages %}<|{{ m.role }}|>"
        "{% for p in m.content if p.type == 'image' %}" + _PHI_IMAGE + "\n{% endfor %}"
        "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}"
        "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        named=_PHI_NAMED,
        # vLLM fixes them.
        vocabulary={_PHI_IMAGE: 200010, _PHI_AUDIO: 200011},
        numbered=(_PHI_IMAGE, "<|image_{}|>"),
        architecture="Phi4MMForCausalLM",
        publish=_publish_phi,
        code=True,
        answers=False,
    ),
}
