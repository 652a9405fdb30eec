# SPDX-License-Identifier: Apache-2.0
"""Write a Qwen2.5-VL of a published size with random weights, to measure pictures without a download.

python -m scripts.bench.random_qwen_vl FOLDER --tokenizer DIR --size 3B
triton-chat bench --model FOLDER --workload image --temperature 1
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from scripts.bench.random_checkpoint import run

# name -> (hidden size, width of the MLP, layers, heads, heads of keys and values), as published, and one for CPUs.
SIZES = {"tiny": (256, 512, 4, 4, 2), "3B": (2048, 11008, 36, 16, 2), "7B": (3584, 18944, 28, 28, 4)}
# The same for the tower: (width, width of the MLP, layers, heads, layers with attention over the whole picture).
TOWERS = {"tiny": (128, 256, 4, 4, [3])}
PUBLISHED_TOWER = (1280, 3420, 32, 16, [7, 15, 23, 31])
# In the shape of the published template, without tools.
CHAT_TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PIXELS = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def write(folder: Path, tokenizer: Path, size: str) -> None:
    """Write the checkpoint in bfloat16, made on the GPU if there is one; size is one of SIZES.

    tokenizer: a folder with tokenizer.json and tokenizer_config.json of a Qwen model.
    """
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = Qwen2_5_VLForConditionalGeneration(config(size))  # type: ignore[no-untyped-call] # transformers
    finally:
        torch.set_default_dtype(default)
    model.save_pretrained(folder)
    processors = {
        "preprocessor_config.json": {
            **_PIXELS,
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
        "video_preprocessor_config.json": {
            **_PIXELS,
            "video_processor_type": "Qwen2VLVideoProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
        },
    }
    for name, content in processors.items():
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / name, folder / name)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def config(size: str) -> Qwen2_5_VLConfig:
    """The configuration of a size."""
    hidden, middle, layers, heads, kv_heads = SIZES[size]
    width, vision_middle, depth, vision_heads, whole = TOWERS.get(size, PUBLISHED_TOWER)
    text: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": middle,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": 151_936,
        "max_position_embeddings": 128_000,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [hidden // heads // 8, *[hidden // heads * 3 // 16] * 2],
        },
        "bos_token_id": 151_643,  # nosec B105 # an id, no secret
        "eos_token_id": 151_645,  # nosec B105 # an id, no secret
        "tie_word_embeddings": True,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": vision_middle,
        "depth": depth,
        "num_heads": vision_heads,
        "out_hidden_size": hidden,
        "fullatt_block_indexes": whole,
        "window_size": 112,
        "tokens_per_second": 2,
    }
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


if __name__ == "__main__":
    run(__doc__, write, SIZES, "3B")
