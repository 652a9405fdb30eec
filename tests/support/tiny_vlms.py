# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints of vision-language families: transformers' models, processors as published, short templates.

Each has a small byte-level tokenizer with the family's special tokens, and a chat template in the shape of the published
one. Pictures of about 100 pixels become 4 to 60 tokens.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer
from transformers import PretrainedConfig, PreTrainedModel

from tests.support.checkpoints import SHAPE
from tests.support.remote_code_vlms import REMOTE_CODE_VLMS
from tests.support.tiny_vlm import (
    CLIP,
    HALF,
    PREPROCESSOR,
    PROCESSOR,
    VIDEO,
    TinyVlm,
    TokenIds,
    chatml,
    parts_template,
)
from tests.support.vlm_checkpoints import make_tokenizer, rename_tensors, transpose_tensors

# The folder in that of a published layout with the same in transformers' own.
_TRANSFORMERS = "transformers"


def make_tiny_vlm(family: str, folder: Path, *, weights: bool = True) -> Path:
    """Write a family's checkpoint in float32; always the same, as it is seeded. weights: as well as what processors read."""
    tiny = TINY_VLMS[family]
    if tiny.publish is None:
        _make(tiny, folder, weights)
    else:
        tiny.publish(_make(tiny, folder / _TRANSFORMERS, weights), folder)
    return folder


def in_transformers_layout(folder: Path) -> Path:
    """The folder with what transformers reads of a checkpoint by `make_tiny_vlm`."""
    own = folder / _TRANSFORMERS
    return own if own.is_dir() else folder


def _make(tiny: TinyVlm, folder: Path, weights: bool) -> Path:
    make_tokenizer(folder, tiny.vocabulary)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tiny.tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if tiny.named:
        # transformers 5 reads them at the top level, 4 in a table.
        config |= {"extra_special_tokens": dict(tiny.named)}
    _write(folder / "tokenizer_config.json", config)
    for name, values in tiny.files.items():
        _write(folder / name, values)
    (folder / "chat_template.jinja").write_text(tiny.template, encoding="utf-8")

    text = SHAPE | {
        "vocab_size": -(-(max(tokenizer.get_vocab().values()) + 2) // 64) * 64,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
    }
    config_of_model = tiny.config(tokenizer.token_to_id, text)
    if weights and tiny.answers:
        _save_weights(tiny, config_of_model, folder)
    else:
        config_of_model.architectures = [tiny.model]
        config_of_model.save_pretrained(folder)
    if tiny.text:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["text_config"] |= tiny.text
        _write(folder / "config.json", config)
    return folder


def _save_weights(tiny: TinyVlm, config: PretrainedConfig, folder: Path) -> None:
    torch.manual_seed(tiny.seed)
    model = getattr(transformers, tiny.model)(config).to(torch.float32)
    _randomise(model)
    if tiny.sharpen:
        _sharpen(model, tiny.sharpen)
    model.generation_config.eos_token_id = [model.config.get_text_config().eos_token_id]
    # Without a layout of its own, in the published one, as far as transformers knows it.
    model.save_pretrained(folder, save_original_format=tiny.publish is None)
    if tiny.transposed:
        transpose_tensors(folder, tiny.transposed)
    rename_tensors(folder, lambda name: name.replace(*tiny.published) if all(tiny.published) else name)


def _randomise(model: PreTrainedModel) -> None:
    """Draw every tensor of the vision part by its width, and shake what transformers leaves at one or zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn_like(parameter)
            if any(part in name for part in ("language_model", "text_model", "lm_head")):
                if parameter.dim() == 1:
                    parameter.add_(drawn * 0.1)
            elif parameter.dim() >= 2:
                parameter.copy_(drawn * parameter[0].numel() ** -0.5)
            else:
                parameter.add_(drawn * 0.1)
        if model.get_output_embeddings().weight is model.get_input_embeddings().weight:
            # With large tied embeddings a random model only repeats its last token.
            model.get_input_embeddings().weight.mul_(0.02)
            model.get_decoder().norm.weight.mul_(20)


def _sharpen(model: PreTrainedModel, by: float) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("q_norm.weight"):
                parameter.add_(by)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")


# Qwen

_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
_QWEN_TEMPLATE = chatml("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")


def _qwen_ids(ids: TokenIds) -> dict[str, int]:
    names = ("vision_start", "vision_end", "image", "video")
    tokens = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    return {f"{name}_token_id": ids(token) for name, token in zip(names, tokens, strict=True)}


def _qwen2_vl(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 2, "mlp_ratio": 2}
    return transformers.Qwen2VLConfig(
        text_config=_without_head_dim(text) | {"rope_parameters": rope}, vision_config=vision, **_qwen_ids(ids)
    )


def _qwen2_5_vl(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
    # One layer with attention in windows of 4 x 4 patches and one with full attention.
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 96, "out_hidden_size": 128}
    vision |= {"window_size": 56, "fullatt_block_indexes": [1], "tokens_per_second": 2}
    return transformers.Qwen2_5_VLConfig(
        text_config=_without_head_dim(text) | {"rope_parameters": rope}, vision_config=vision, **_qwen_ids(ids)
    )


_QWEN3_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 96,
    "out_hidden_size": 128,
    "num_position_embeddings": 64,
}


def _qwen3_vl(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [12, 10, 10], "mrope_interleaved": True}
    return transformers.Qwen3VLConfig(
        text_config=text | {"rope_parameters": rope},
        vision_config=_QWEN3_VISION | {"deepstack_visual_indexes": [0]},
        **_qwen_ids(ids),
    )


def _qwen3_vl_moe(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 96, "decoder_sparse_step": 1}
    dense = _qwen3_vl(ids, text)
    return transformers.Qwen3VLMoeConfig(
        text_config=dense.text_config.to_dict() | experts | {"model_type": "qwen3_vl_moe_text"},
        vision_config=_QWEN3_VISION | {"deepstack_visual_indexes": [0]},
        **_qwen_ids(ids),
    )


def _qwen3_5_text(text: dict[str, Any]) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2], "mrope_interleaved": True}
    linear = {"linear_num_key_heads": 1, "linear_num_value_heads": 2}
    linear |= {"linear_key_head_dim": 64, "linear_value_head_dim": 64}
    layers = {"layer_types": ["linear_attention", "full_attention"]}
    return text | linear | layers | {"rope_parameters": rope | {"partial_rotary_factor": 0.25}}


def _qwen3_5(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.Qwen3_5Config(text_config=_qwen3_5_text(text), vision_config=_QWEN3_VISION, **_qwen_ids(ids))


def _without_head_dim(text: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in text.items() if key != "head_dim"}


def _qwen_files(processor: str, patch: int, video: str, numbers: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    unit = (2 * patch) ** 2
    sizes = {"size": {"shortest_edge": 4 * unit, "longest_edge": 32 * unit}}
    common = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": 2, "processor_class": processor, **numbers}
    return {
        PREPROCESSOR: {"image_processor_type": "Qwen2VLImageProcessor", **common, **sizes},
        VIDEO: {"video_processor_type": video, **common, **sizes},
    }


# LLaVA


def _tower(kind: str, **extra: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2}
    return {"model_type": kind, "image_size": 56, "patch_size": 14, **sizes, **extra}


def _llama(text: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "llama", **text}


def _qwen2(text: dict[str, Any]) -> dict[str, Any]:
    return {"model_type": "qwen2", **_without_head_dim(text)}


def _llava(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.LlavaConfig(
        text_config=_llama(text),
        vision_config=_tower("clip_vision_model", projection_dim=64),
        image_token_index=ids("<image>"),
        image_seq_length=16,
    )


_PINPOINTS = [[56, 112], [112, 56], [112, 112]]


def _llava_next(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.LlavaNextConfig(
        text_config=_llama(text),
        vision_config=_tower("clip_vision_model", projection_dim=64),
        image_token_index=ids("<image>"),
        image_seq_length=16,
        image_grid_pinpoints=_PINPOINTS,
    )


def _llava_onevision(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.LlavaOnevisionConfig(
        text_config=_qwen2(text),
        vision_config=_tower("siglip_vision_model", vision_use_head=False),
        image_token_index=ids("<image>"),
        video_token_index=ids("<video>"),
        image_grid_pinpoints=_PINPOINTS,
        vision_aspect_ratio="anyres_max_9",
    )


_SQUARE = {"size": {"height": 56, "width": 56}}
_SHORTEST = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
_VICUNA = parts_template("{{ m.role | upper }}: ", " ", "ASSISTANT:", "<image>\n", first=True)
_CLIP_PROCESSOR = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


# Idefics3 and SmolVLM

_IDEFICS_TOKENS = (
    *("<image>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
_IDEFICS_TEMPLATE = parts_template(
    "<|im_start|>{{ m.role | capitalize }}: ", "<end_of_utterance>\n", "Assistant:", "<image>"
)


def _idefics(config: str) -> Callable[[TokenIds, dict[str, Any]], PretrainedConfig]:
    def build(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
        vision = {key: value for key, value in _tower("").items() if key != "model_type"}
        return getattr(transformers, config)(  # type: ignore[no-any-return]
            text_config=_llama(text),
            vision_config=vision,
            scale_factor=2,
            image_token_id=ids("<image>"),
            pad_token_id=text["pad_token_id"],
        )

    return build


def _idefics_files(name: str) -> dict[str, dict[str, Any]]:
    numbers = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}, **HALF}
    return {
        PREPROCESSOR: {"image_processor_type": f"{name}ImageProcessor", "do_image_splitting": True, **numbers},
        PROCESSOR: {"processor_class": f"{name}Processor", "image_seq_len": 4},
    }


# Pixtral


def _pixtral_vision() -> dict[str, Any]:
    return _tower("pixtral", head_dim=32) | {"image_size": 224, "num_hidden_layers": 2}


def _pixtral(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.LlavaConfig(
        text_config={"model_type": "mistral", **text, "sliding_window": None},
        vision_config=_pixtral_vision(),
        image_token_index=ids("[IMG]"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=1,
    )


def _mistral3(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.Mistral3Config(
        text_config={"model_type": "mistral", **text, "sliding_window": None},
        vision_config=_pixtral_vision(),
        image_token_index=ids("[IMG]"),
        spatial_merge_size=2,
        tie_word_embeddings=False,
    )


_PIXTRAL_TOKENS = ("<s>", "</s>", "[INST]", "[/INST]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
_PIXTRAL_TEMPLATE = parts_template(
    "{% if loop.first %}<s>{% endif %}{% if m.role == 'user' %}[INST]{% endif %}",
    "{% if m.role == 'user' %}[/INST]{% else %}</s>{% endif %}",
    "",
    "[IMG]",
)


def _pixtral_files(merge: int) -> dict[str, dict[str, Any]]:
    common = {"patch_size": 14, "processor_class": "PixtralProcessor", "spatial_merge_size": merge}
    numbers = {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 224}, **CLIP}
    return {PREPROCESSOR: common | numbers | {"patch_size": {"height": 14, "width": 14}}, PROCESSOR: common}


# Gemma

_GEMMA4_TOKENS = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}


def _gemma4(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512, "global_head_dim": 64}
    per_layer = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": text["vocab_size"]}
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"num_key_value_heads": 2, "head_dim": 32, "position_embedding_size": 256, "default_output_length": 70}
    return transformers.Gemma4Config(
        text_config=text | layers | per_layer | {"num_global_key_value_heads": 1},
        vision_config=vision,
        audio_config=None,
        video_token_id=ids("<|video|>"),
        **{f"{name}_id": ids(token) for name, token in _GEMMA4_TOKENS.items() if name != "eoa_token"},
        eoa_token_index=ids("<audio|>"),
    )


_GEMMA3N_TOKENS = {
    "image_token": "<image_soft_token>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "audio_token": "<audio_soft_token>",
    "boa_token": "<start_of_audio>",
    "eoa_token": "<end_of_audio>",
}
# Published ones have 768, which takes this network a minute on two busy cores.
_GEMMA3N_PIXELS = {"size": {"height": 128, "width": 128}}


def _gemma3n(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    size = text["vocab_size"]
    per_layer = {"hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": size, "laurel_rank": 16}
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 512, "num_kv_shared_layers": 0}
    more = {"activation_sparsity_pattern": [0.5, 0.0], "intermediate_size": [256, 256], "altup_num_inputs": 2}
    audio = {"hidden_size": 64, "conf_num_hidden_layers": 1, "conf_num_attention_heads": 2}
    return transformers.Gemma3nConfig(
        text_config=text | per_layer | layers | more,
        # timm's network is fixed but for its width.
        vision_config={"model_args": {"channel_multiplier": 0.0625}, "vocab_offset": size},
        audio_config=audio | {"vocab_offset": size + 128},
        image_token_id=ids("<image_soft_token>"),
        boi_token_id=ids("<start_of_image>"),
        eoi_token_id=ids("<end_of_image>"),
        audio_token_id=ids("<audio_soft_token>"),
        boa_token_id=ids("<start_of_audio>"),
        eoa_token_id=ids("<end_of_audio>"),
    )


# GLM-4.1V

_GLM_TOKENS = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
_GLM_TOKENS += ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>")
_GLM_TOKENS += ("<|begin_of_video|>", "<|video|>", "<|end_of_video|>")
_GLM_TEMPLATE = "[gMASK]<sop>" + parts_template(
    "<|{{ m.role }}|>\n",
    "",
    "<|assistant|>\n",
    "<|begin_of_image|><|image|><|end_of_image|>",
    "<|begin_of_video|><|video|><|end_of_video|>",
)


def _glm_ids(ids: TokenIds) -> dict[str, int]:
    found = {f"{kind}_token_id": ids(f"<|{kind}|>") for kind in ("image", "video")}
    for kind in ("image", "video"):
        found |= {f"{kind}_start_token_id": ids(f"<|begin_of_{kind}|>")}
        found |= {f"{kind}_end_token_id": ids(f"<|end_of_{kind}|>")}
    return found


_GLM_VISION = {
    "depth": 2,
    "hidden_size": 64,
    "num_heads": 2,
    "image_size": 112,
    "out_hidden_size": 128,
    "intermediate_size": 96,
}
_GLM_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [4, 6, 6]}


def _glm4v(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    return transformers.Glm4vConfig(
        text_config=text | {"rope_parameters": _GLM_ROPE, "attention_bias": True},
        vision_config=_GLM_VISION,
        **_glm_ids(ids),
    )


def _glm4v_moe(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "n_shared_experts": 1}
    experts |= {"first_k_dense_replace": 1, "use_qk_norm": False}
    return transformers.Glm4vMoeConfig(
        text_config=text | experts | {"rope_parameters": _GLM_ROPE},
        vision_config=_GLM_VISION,
        **_glm_ids(ids),
    )


def _glm_files(numbers: Mapping[str, Any], kind: str = "Glm4v") -> dict[str, dict[str, Any]]:
    common = {"patch_size": 14, "temporal_patch_size": 2, "merge_size": 2, "processor_class": f"{kind}Processor"}
    common |= {**numbers, "size": {"shortest_edge": 2 * 28 * 28, "longest_edge": 64 * 28 * 28}}
    return {
        PREPROCESSOR: {"image_processor_type": f"{kind}ImageProcessor", **common},
        VIDEO: {"video_processor_type": f"{kind}VideoProcessor", **common},
    }


# InternVL, as transformers has it

_INTERNVL_NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}


def _internvl(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.InternVLConfig(
        text_config={"model_type": "qwen3", **text},
        vision_config=vision | {"image_size": [56, 56], "attention_bias": True},
        image_token_id=ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )


# MiniCPM-V

_MINICPM_NAMED = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def _minicpmv(ids: TokenIds, text: dict[str, Any]) -> PretrainedConfig:
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.MiniCPMV4_6Config(
        text_config={"model_type": "qwen3_5_text", **_qwen3_5_text(text)},
        vision_config=vision | {"image_size": 112, "patch_size": 14},
        insert_layer_id=0,
        image_size=112,
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
    )


_MINICPM_NUMBERS = {"max_slice_nums": 4, "scale_resolution": 112, "patch_size": 14, **HALF}

TINY_VLMS: dict[str, TinyVlm] = {
    "qwen2_vl": TinyVlm(
        "Qwen2VLForConditionalGeneration",
        _qwen2_vl,
        _QWEN_TOKENS,
        _qwen_files("Qwen2VLProcessor", 14, "Qwen2VLVideoProcessor", CLIP),
        _QWEN_TEMPLATE,
        video=True,
    ),
    "qwen2_5_vl": TinyVlm(
        "Qwen2_5_VLForConditionalGeneration",
        _qwen2_5_vl,
        _QWEN_TOKENS,
        _qwen_files("Qwen2_5_VLProcessor", 14, "Qwen2VLVideoProcessor", CLIP),
        _QWEN_TEMPLATE,
        video=True,
        seed=13,
    ),
    "qwen3_vl": TinyVlm(
        "Qwen3VLForConditionalGeneration",
        _qwen3_vl,
        _QWEN_TOKENS,
        _qwen_files("Qwen3VLProcessor", 16, "Qwen3VLVideoProcessor", HALF),
        _QWEN_TEMPLATE,
        video=True,
        seed=8,
    ),
    "qwen3_vl_moe": TinyVlm(
        "Qwen3VLMoeForConditionalGeneration",
        _qwen3_vl_moe,
        _QWEN_TOKENS,
        _qwen_files("Qwen3VLProcessor", 16, "Qwen3VLVideoProcessor", HALF),
        _QWEN_TEMPLATE,
        video=True,
        seed=8,
        transposed=".mlp.experts.",
        # transformers' model does this always, and does not ask.
        text={"norm_topk_prob": True},
    ),
    "qwen3_5": TinyVlm(
        "Qwen3_5ForConditionalGeneration",
        _qwen3_5,
        _QWEN_TOKENS,
        _qwen_files("Qwen3VLProcessor", 16, "Qwen3VLVideoProcessor", HALF),
        _QWEN_TEMPLATE,
        video=True,
        sharpen=3.0,
        seed=10,
        bfloat16=True,
    ),
    "llava": TinyVlm(
        "LlavaForConditionalGeneration",
        _llava,
        ("<image>",),
        {
            PREPROCESSOR: {"image_processor_type": "CLIPImageProcessor", **_SHORTEST, **CLIP},
            PROCESSOR: {"processor_class": "LlavaProcessor", **_CLIP_PROCESSOR},
        },
        _VICUNA,
        published=("vision_tower.", "vision_tower.vision_model."),
        seed=10,
    ),
    "llava_next": TinyVlm(
        "LlavaNextForConditionalGeneration",
        _llava_next,
        ("<image>",),
        {
            PREPROCESSOR: {"image_processor_type": "LlavaNextImageProcessor", **_SHORTEST, **CLIP}
            | {"image_grid_pinpoints": _PINPOINTS},
            PROCESSOR: {"processor_class": "LlavaNextProcessor", **_CLIP_PROCESSOR},
        },
        _VICUNA,
        published=("vision_tower.", "vision_tower.vision_model."),
    ),
    "llava_onevision": TinyVlm(
        "LlavaOnevisionForConditionalGeneration",
        _llava_onevision,
        ("<image>", "<video>"),
        {
            PREPROCESSOR: {"image_processor_type": "LlavaOnevisionImageProcessor", **_SQUARE, **HALF}
            | {"image_grid_pinpoints": _PINPOINTS},
            VIDEO: {"video_processor_type": "LlavaOnevisionVideoProcessor", **_SQUARE, **HALF},
            PROCESSOR: {
                "processor_class": "LlavaOnevisionProcessor",
                "num_image_tokens": 16,
                "vision_feature_select_strategy": "full",
                "vision_aspect_ratio": "anyres_max_9",
            },
        },
        chatml("<image>\n", "<video>\n", first=True),
        video=True,
        published=("vision_tower.", "vision_tower.vision_model."),
        seed=8,
    ),
    "idefics3": TinyVlm(
        "Idefics3ForConditionalGeneration",
        _idefics("Idefics3Config"),
        _IDEFICS_TOKENS,
        _idefics_files("Idefics3"),
        _IDEFICS_TEMPLATE,
    ),
    "smolvlm": TinyVlm(
        "SmolVLMForConditionalGeneration",
        _idefics("SmolVLMConfig"),
        _IDEFICS_TOKENS,
        _idefics_files("SmolVLM"),
        _IDEFICS_TEMPLATE,
    ),
    "pixtral": TinyVlm(
        "LlavaForConditionalGeneration",
        _pixtral,
        _PIXTRAL_TOKENS,
        _pixtral_files(1),
        _PIXTRAL_TEMPLATE,
        seed=10,
    ),
    "mistral3": TinyVlm(
        "Mistral3ForConditionalGeneration",
        _mistral3,
        _PIXTRAL_TOKENS,
        _pixtral_files(2),
        _PIXTRAL_TEMPLATE,
        seed=12,
    ),
    "gemma4": TinyVlm(
        "Gemma4ForConditionalGeneration",
        _gemma4,
        ("<bos>", "<|turn>", "<turn|>", "<|video|>", *_GEMMA4_TOKENS.values()),
        {
            PROCESSOR: {
                "processor_class": "Gemma4Processor",
                "image_seq_length": 70,
                "image_processor": {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 70},
                "video_processor": {"video_processor_type": "Gemma4VideoProcessor", "max_soft_tokens": 70},
                "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor"},
            }
        },
        parts_template(
            "{% if loop.first %}<bos>{% endif %}<|turn>{{ m.role }}\n",
            "<turn|>\n",
            "<|turn>model\n",
            "<|image|>",
            "<|video|>",
        ),
        video=True,
        named=_GEMMA4_TOKENS,
        sharpen=3.0,
        # None of its answers writes the token of an image, whose embedding transformers replaces in answers too.
        seed=12,
    ),
    "glm4v": TinyVlm(
        "Glm4vForConditionalGeneration",
        _glm4v,
        _GLM_TOKENS,
        _glm_files(CLIP),
        _GLM_TEMPLATE,
        video=True,
        unanswered=("video and picture",),
    ),
    "glm4v_moe": TinyVlm(
        "Glm4vMoeForConditionalGeneration",
        _glm4v_moe,
        _GLM_TOKENS,
        _glm_files(CLIP),
        _GLM_TEMPLATE,
        video=True,
        unanswered=("video and picture",),
    ),
    "internvl": TinyVlm(
        "InternVLForConditionalGeneration",
        _internvl,
        tuple(_INTERNVL_NAMED.values()),
        {
            PREPROCESSOR: {
                "image_processor_type": "GotOcr2ImageProcessor",
                "crop_to_patches": True,
                "max_patches": 4,
                **_SQUARE,
                **CLIP,
            },
            VIDEO: {"video_processor_type": "InternVLVideoProcessor", **_SQUARE, **CLIP},
            PROCESSOR: {"processor_class": "InternVLProcessor", "image_seq_length": 4},
        },
        chatml("<IMG_CONTEXT>\n", "<video>\n"),
        video=True,
        named=_INTERNVL_NAMED,
        seed=8,
    ),
    "minicpmv4_6": TinyVlm(
        "MiniCPMV4_6ForConditionalGeneration",
        _minicpmv,
        tuple(_MINICPM_NAMED.values()),
        {
            PREPROCESSOR: {"image_processor_type": "MiniCPMV4_6ImageProcessor", **_MINICPM_NUMBERS},
            VIDEO: {"video_processor_type": "MiniCPMV4_6VideoProcessor", **_MINICPM_NUMBERS},
            PROCESSOR: {"processor_class": "MiniCPMV4_6Processor"},
        },
        chatml("<|image_pad|>", "<|video_pad|>"),
        video=True,
        named=_MINICPM_NAMED,
        sharpen=6.0,
        # Pictures of different sizes, that is.
        unanswered=("two pictures in a text", "turns"),
        seed=29,
        bfloat16=True,
    ),
    "gemma3n": TinyVlm(
        "Gemma3nForConditionalGeneration",
        _gemma3n,
        (*_GEMMA3N_TOKENS.values(), "<bos>", "<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "\n\n\n", "\n\n\n\n"),
        {
            PREPROCESSOR: {"image_processor_type": "SiglipImageProcessor", **_GEMMA3N_PIXELS, "do_normalize": False},
            PROCESSOR: {
                "processor_class": "Gemma3nProcessor",
                "image_seq_length": 256,
                "audio_seq_length": 188,
                "image_processor": {
                    "image_processor_type": "SiglipImageProcessor",
                    "do_normalize": False,
                    **_GEMMA3N_PIXELS,
                },
                "feature_extractor": {"feature_extractor_type": "Gemma3nAudioFeatureExtractor"},
            },
        },
        parts_template(
            "{% if loop.first %}<bos>{% endif %}<start_of_turn>{{ m.role }}\n",
            "<end_of_turn>\n",
            "<start_of_turn>model\n",
            "<image_soft_token>",
        ),
        named=_GEMMA3N_TOKENS,
        # On two busy cores the network takes a minute for a picture, even as narrow as this.
        answers=False,
    ),
    **REMOTE_CODE_VLMS,
}
