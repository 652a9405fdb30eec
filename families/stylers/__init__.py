# SPDX-License-Identifier: Apache-2.0
"""Prompt formatters, one module per model family."""

# The families by name: the keys of families.detection.FAMILIES, which imports transformers.
NAMES = (
    "qwen",
    "qwen3",
    "internvl2_5",
    "gemma3",
    "deepseek_v32",
    "deepseek_v4_preview",
    "deepseek_v4",
    "llama3",
    "default",
)
