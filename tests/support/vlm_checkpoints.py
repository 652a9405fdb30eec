# SPDX-License-Identifier: Apache-2.0
"""Tiny random vision-language checkpoints of transformers, in the published layouts."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GptOssConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    SiglipVisionConfig,
)
from transformers.convert_slow_tokenizer import Qwen2Converter

from tests.support.checkpoints import MOE, SHAPE, SLIDING
from tests.support.internvl_original import write_original

IMAGE_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>")
HEAD_DIM = 64
# InternVL2.5 and 3 have Qwen2.5 or InternLM, InternVL3.5 has Qwen3 or gpt-oss. InternLM3 is a Llama, InternLM2 one with
# other tensor names.
LANGUAGES: dict[str, Callable[..., PretrainedConfig]] = {
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "qwen3_moe": partial(Qwen3MoeConfig, **MOE),
    "gpt_oss": partial(GptOssConfig, num_local_experts=4, num_experts_per_tok=2),
    "llama": LlamaConfig,
    "internlm2": LlamaConfig,
    "internlm3": LlamaConfig,
}
# As InternViT-300M and InternViT-6B.
SMALL_TOWER = {"attention_bias": True, "use_qk_norm": False, "norm_type": "layer_norm"}
LARGE_TOWER = {"attention_bias": False, "use_qk_norm": True, "norm_type": "rms_norm"}
_WEIGHTS = "model.safetensors"
_IMAGE_TOKENS_OF_GEMMA = {
    "boi_token_index": "<start_of_image>",
    "eoi_token_index": "<end_of_image>",
    "image_token_index": "<image_soft_token>",
}
# As in google/gemma-3-4b-it.
GEMMA_PROCESSOR = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "Gemma3ImageProcessor",
    "image_seq_length": 256,
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Gemma3Processor",
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 896, "width": 896},
}


@dataclass(frozen=True)
class VlmCheckpoint:
    """A checkpoint in the requested layout, and the same weights for InternVLForConditionalGeneration in `reference`."""

    path: Path
    reference: Path


def make_internvl(
    folder: Path,
    tokenizer_dir: Path,
    language: str = "qwen2",
    layout: str = "transformers",
    *,
    hidden_size: int = 128,
    image_size: int = 56,
    tower: dict[str, Any] = SMALL_TOWER,
    tied: bool = False,
    rope_scaling: dict[str, Any] | None = None,
) -> VlmCheckpoint:
    """Write a seeded float32 InternVL checkpoint.

    hidden_size: of the language model, a multiple of 64 (heads are 64 wide, half as many for keys and values).
    image_size: side of a tile; 56 has 4 tokens a tile, 448 has 256. layout: "transformers" or "original".
    """
    reference = folder if layout == "transformers" else folder.with_name(f"{folder.name}-reference")
    vocab_size, ids = _write_tokenizer(tokenizer_dir, reference, IMAGE_TOKENS)
    heads = hidden_size // HEAD_DIM
    text = LANGUAGES[language](
        **SHAPE
        | {"hidden_size": hidden_size, "num_attention_heads": heads, "num_key_value_heads": max(1, heads // 2)}
        | ({"rope_parameters": {"rope_theta": 10000.0, **rope_scaling}} if rope_scaling else {}),
        **ids,
        vocab_size=vocab_size,
        tie_word_embeddings=tied,
    )
    vision = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        **tower,
    }
    config = InternVLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=Tokenizer.from_file(str(reference / "tokenizer.json")).token_to_id("<IMG_CONTEXT>"),
        image_seq_length=(image_size // 28) ** 2,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(7)
    model = InternVLForConditionalGeneration(config).to(torch.float32)
    _randomise(model, tied)
    model.generation_config.eos_token_id = [ids["eos_token_id"]]
    model.save_pretrained(reference)
    if layout == "original":
        shutil.copytree(reference, folder, ignore=shutil.ignore_patterns(_WEIGHTS, "config.json"))
        write_original(folder, model, reference / _WEIGHTS, language)
    return VlmCheckpoint(folder, reference)


def make_gemma3(folder: Path, tokenizer_dir: Path) -> Path:
    """Write a seeded float32 Gemma 3 with images of 896 pixels and 256 tokens, its tensors named as published."""
    vocab_size, ids = _write_tokenizer(tokenizer_dir, folder, tuple(_IMAGE_TOKENS_OF_GEMMA.values()))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vision = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=896,
        patch_size=14,
        vision_use_head=False,
    )
    config = Gemma3Config(
        # The window is no shorter than an image's tokens, as in published models: otherwise vLLM masks some of them.
        text_config=Gemma3TextConfig(**SHAPE, **SLIDING | {"sliding_window": 512}, **ids, vocab_size=vocab_size),
        vision_config=vision,
        mm_tokens_per_image=256,
        **{key: tokenizer.token_to_id(token) for key, token in _IMAGE_TOKENS_OF_GEMMA.items()},
    )
    torch.manual_seed(7)
    model = Gemma3ForConditionalGeneration(config).to(torch.float32)
    _randomise(model, tied=True)
    _sharpen_attention(model)
    model.save_pretrained(folder)
    rename_tensors(folder, lambda name: name.replace("vision_tower.", "vision_tower.vision_model."))
    _write_json(folder / "preprocessor_config.json", GEMMA_PROCESSOR)
    _write_json(folder / "processor_config.json", {"image_seq_length": 256, "processor_class": "Gemma3Processor"})
    return folder


def make_tokenizer(folder: Path, more: Mapping[str, int] | None = None) -> Path:
    """Write a small Qwen2 tokenizer with all bytes and a few merges, which loads quickly. more: tokens with their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {piece: index for index, piece in enumerate([*sorted(ByteLevel.alphabet()), "th", "the", "Ġthe"])} | dict(
        more or {}
    )
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    tokenizer = Qwen2Converter(None).converted(vocab=vocab, merges=merges)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write_json(folder / "tokenizer_config.json", config)
    return folder


def rename_tensors(folder: Path, rename: Callable[[str], str]) -> None:
    """Rename the tensors of a checkpoint."""
    tensors = {rename(name): tensor for name, tensor in load_file(folder / _WEIGHTS).items()}
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})


def transpose_tensors(folder: Path, part: str) -> None:
    """Swap the last two dimensions of the tensors with `part` in their names."""
    tensors = load_file(folder / _WEIGHTS)
    swapped = {name: tensor.transpose(-1, -2).contiguous() for name, tensor in tensors.items() if part in name}
    save_file(tensors | swapped, folder / _WEIGHTS, metadata={"format": "pt"})


def write_shards(folder: Path, shards: int) -> None:
    """Split a checkpoint's weight file into shards with an index."""
    tensors = load_file(folder / _WEIGHTS)
    (folder / _WEIGHTS).unlink()
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        names = sorted(tensors)[number::shards]
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_tokenizer(source: Path, target: Path, tokens: tuple[str, ...]) -> tuple[int, dict[str, int | None]]:
    """Copy a tokenizer with `tokens` added as special tokens; returns (rows of its embedding, its special ids)."""
    target.mkdir(parents=True)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    tokenizer.save(str(target / "tokenizer.json"))
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    ids = {f"{kind}_token_id": _id_of(tokenizer, config.get(f"{kind}_token")) for kind in ("bos", "eos", "pad")}
    # A little larger than the tokenizer, as in published models.
    return -(-(tokenizer.get_vocab_size() + 1) // 64) * 64, ids


def _id_of(tokenizer: Tokenizer, token: Any) -> int | None:
    content = token["content"] if isinstance(token, dict) else token
    return None if content is None else tokenizer.token_to_id(content)


def _randomise(model: torch.nn.Module, tied: bool) -> None:
    """Randomise every tensor: transformers initialises norms to one, biases and positions to zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "vision_tower" in name or "multi_modal_projector" in name:
                _draw_vision(name, parameter)
            elif name.endswith(("norm.weight", "bias")):
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if tied:
            # With large tied embeddings a random model only repeats its last token.
            model.get_input_embeddings().weight.mul_(0.02)


def _sharpen_attention(model: Gemma3ForConditionalGeneration) -> None:
    """Sharpen attention; otherwise every answer is close to the mean of all tokens, whatever the picture and mask."""
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.mul_(0.3)
        for name, parameter in model.named_parameters():
            if name.endswith("q_norm.weight"):
                parameter.add_(2)


def _draw_vision(name: str, parameter: torch.Tensor) -> None:
    drawn = torch.randn_like(parameter)
    if "norm" in name and name.endswith("weight"):
        parameter.copy_(1 + 0.1 * drawn)
    elif "lambda" in name:
        parameter.copy_(0.5 + 0.1 * drawn)
    elif name.endswith("mm_input_projection_weight"):  # Inputs by outputs, unlike a linear layer's.
        parameter.copy_(drawn * parameter.shape[0] ** -0.5)
    elif parameter.dim() in (2, 4):
        parameter.copy_(drawn * parameter[0].numel() ** -0.5)
    else:
        parameter.copy_(0.2 * drawn)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
