# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with the configuration of published models and tiny weights, and fake tools of TensorRT-LLM."""

import json
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[2]
FAKES = ROOT / "tests" / "fakes"
TOKENS = {"eos_token_id": 1, "pad_token_id": 0}
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
    **TOKENS,
}
QWEN2_7B = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "vocab_size": 152064,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
    **TOKENS,
}
# The language model of InternVL2.5-8B: InternLM2, which the split converts to a Llama.
INTERNLM2_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "vocab_size": 92553,
    "max_position_embeddings": 32768,
    "dtype": "bfloat16",
    **TOKENS,
}
INTERNVIT = {"model_type": "intern_vit", "image_size": 448, "patch_size": 14, "downsample_ratio": 0.5}
GEMMA3_4B = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "num_hidden_layers": 34,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "vocab_size": 262208,
    "max_position_embeddings": 131072,
    "sliding_window": 1024,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    **TOKENS,
}
CONVERTERS = ("qwen", "llama", "gemma")


def checkpoint(folder: Path, config: dict, vision: dict | None = None, **more: object) -> Path:
    """Write a checkpoint folder with all its files. vision: the tower's config, if there is a tower."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config | more))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"w": np.zeros((8, 8), np.float16)}, folder / "model.safetensors")
    if vision is not None:
        (folder / "vision").mkdir()
        (folder / "vision" / "config.json").write_text(json.dumps(vision))
        save_file({"w": np.zeros((8, 8), np.float16)}, folder / "vision" / "model.safetensors")
    return folder


def fake_image(folder: Path, monkeypatch, gpus: str = "NVIDIA H200, 9.0, 143771", version: str = "1.2.1") -> Path:
    """Put fakes of NVIDIA's tools first on PATH, laid out as in the image; returns the folder of the examples."""
    programs, examples, packages = folder / "bin", folder / "examples", folder / "packages"
    scripts = [examples / "models" / "core" / family / "convert_checkpoint.py" for family in CONVERTERS]
    scripts += [examples / "quantization" / "quantize.py", programs / "trtllm-build"]
    for script in scripts:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.symlink_to(FAKES / "fake_trtllm.py")
    (programs / "nvidia-smi").write_text(f"#!/bin/sh\necho '{gpus}'\n")
    # A python3 that finds TensorRT-LLM's packages, which the tests' environment lacks, and the fakes' modules.
    (programs / "python3").write_text(f'#!/bin/sh\nPYTHONPATH={packages}:{ROOT} exec {sys.executable} "$@"\n')
    for program in ("nvidia-smi", "python3"):
        (programs / program).chmod(0o755)
    if version:
        for name, number in (("tensorrt_llm", version), ("tensorrt", "10.14.1.48")):
            info = packages / f"{name}-{number}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return examples
