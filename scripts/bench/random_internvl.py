# SPDX-License-Identifier: Apache-2.0
"""Write an InternVL2.5 of a published size with random weights, to measure pictures without a download.

  python -m scripts.bench.random_internvl FOLDER --tokenizer DIR --size 1B
  triton-chat bench --model FOLDER --workload image --temperature 1 --vllm-serve-flags=--trust-remote-code

It has the original layout, which `vllm serve` and `triton-chat split` read.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer

from families.stylers.internvl2_5 import SYSTEM_PROMPT
from scripts.bench.random_checkpoint import run
from scripts.split.internvit import IMAGE_TOKENS, expected_shapes
from scripts.split.plan import OutputTensor, Shape
from scripts.split.verify import causal_lm_shapes
from scripts.split.writer import write_weights

DTYPE = "bfloat16"
SHARD_BYTES = 4_000_000_000
# As published: InternViT-300M, and the language model (8B with Qwen2.5-7B's shape instead of InternLM2.5's).
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_channels": 3,
    "image_size": 448,
    "patch_size": 14,
    "hidden_act": "gelu",
    "norm_type": "layer_norm",
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "qk_normalization": False,
    "initializer_factor": 0.1,
    "model_type": "intern_vit_6b",
}
# name -> (hidden size, width of the MLP, layers, heads, heads of keys and values)
SIZES = {"1B": (896, 4864, 24, 14, 2), "8B": (3584, 18944, 28, 28, 4)}
VOCAB_SIZE = 151_936
# The reverse of scripts/split/internvl.py.
_ORIGINAL = {"projector.norm.": "mlp1.0.", "projector.fc1.": "mlp1.1.", "projector.fc2.": "mlp1.3."}
# The prompts that this project makes for the family, so that all contenders read the same tokens.
_CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM_PROMPT + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What the published checkpoints' code does, for `vllm serve --trust-remote-code`.
CONFIGURATION = """
from transformers import AutoConfig, PretrainedConfig


class InternVisionConfig(PretrainedConfig):
    model_type = "intern_vit_6b"


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, **rest):
        super().__init__(**rest)
        language = dict(llm_config or {"model_type": "qwen2"})
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = AutoConfig.for_model(language.pop("model_type"), **language)
"""


def write(folder: Path, tokenizer: Path, size: str) -> None:
    """Write the checkpoint; size is one of SIZES.

    tokenizer: a folder with tokenizer.json and tokenizer_config.json of a Qwen model.
    """
    folder.mkdir(parents=True)
    text = _text_config(size)
    config = _config(text)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "configuration_internvl_chat.py").write_text(CONFIGURATION, encoding="utf-8")
    _write_tokenizer(tokenizer, folder)
    tensors = [OutputTensor(name, shape, (name,)) for name, shape in _shapes(text)]
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    torch.manual_seed(0)
    write_weights(folder, tensors, DTYPE, SHARD_BYTES, lambda name: _random(name, shapes[name]), lambda count: None)


def _text_config(size: str) -> dict[str, Any]:
    hidden, middle, layers, heads, kv_heads = SIZES[size]
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": middle,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
        "torch_dtype": DTYPE,
    }


def _config(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        "model_type": "internvl_chat",
        "llm_config": dict(text),
        "vision_config": {**VISION, "architectures": ["InternVisionModel"]},
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": VISION["image_size"],
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "ps_version": "v2",
        "select_layer": -1,
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": DTYPE,
        "use_thumbnail": True,
    }


def _shapes(text: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Names in the original layout, and shapes, of all tensors."""
    for name, shape in causal_lm_shapes(text).items():
        yield f"language_model.{name}", shape
    vision = {**VISION, "downsample_ratio": 0.5, "llm_hidden_size": text["hidden_size"]}
    for name, shape in expected_shapes(vision).items():
        start = next((start for start in _ORIGINAL if name.startswith(start)), None)
        prefix = "vision_model.encoder." if name.startswith("layers.") else "vision_model."
        yield (prefix + name if start is None else _ORIGINAL[start] + name.removeprefix(start)), shape


def _random(name: str, shape: Shape) -> torch.Tensor:
    """Norms near one and small matrices, so that values stay finite through all layers."""
    values = torch.randn(shape, dtype=torch.bfloat16) * 0.02
    return values + 1 if "norm" in name and name.endswith("weight") else values


def _write_tokenizer(source: Path, folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in IMAGE_TOKENS.values()])
    tokenizer.save(str(folder / "tokenizer.json"))
    # transformers' classes of slow tokenizers know only the added tokens that this file lists.
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    config["added_tokens_decoder"] = {
        str(token_id): token.__getstate__() for token_id, token in tokenizer.get_added_tokens_decoder().items()
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(_CHAT_TEMPLATE, encoding="utf-8")


if __name__ == "__main__":
    run(__doc__, write, SIZES, "1B")
