# SPDX-License-Identifier: Apache-2.0
"""Names of the tensors in the weights file, and of the image tokens in the tokenizer."""

from typing import Any

from models.demo_vlm.layout import RENAMED_TOKENS

# `vision.*`: the names of `vision/model.safetensors`. `language.*.{down,up}`: the adapter of each linear layer.
VISION_PREFIX, LANGUAGE_PREFIX = "vision.", "language."


def rename_image_tokens(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """Rename the unused tokens of a `tokenizer.json` to image tokens. Raises KeyError if it lacks one."""
    vocabulary = dict(tokenizer["model"]["vocab"])
    for old, new in RENAMED_TOKENS.items():
        vocabulary[new] = vocabulary.pop(old)
    added = [_rename(token) for token in tokenizer["added_tokens"]]
    return {**tokenizer, "added_tokens": added, "model": {**tokenizer["model"], "vocab": vocabulary}}


def _rename(token: dict[str, Any]) -> dict[str, Any]:
    return {**token, "content": RENAMED_TOKENS.get(token["content"], token["content"])}
