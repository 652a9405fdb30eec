# SPDX-License-Identifier: Apache-2.0
"""Names in the files: of tensors in the weights, of the image tokens in the tokenizer."""

from typing import Any

from models.demo_vlm.layout import RENAMED_TOKENS

# `vision.*`: the canonical names of `vision/model.safetensors`; `language.*.{down,up}`: changes of the linear layers.
VISION_PREFIX, LANGUAGE_PREFIX = "vision.", "language."


def renamed(tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The content of a `tokenizer.json` with the image tokens' names; raises KeyError where it lacks one."""
    vocabulary = dict(tokenizer["model"]["vocab"])
    for old, new in RENAMED_TOKENS.items():
        vocabulary[new] = vocabulary.pop(old)
    added = [_renamed_token(token) for token in tokenizer["added_tokens"]]
    return {**tokenizer, "added_tokens": added, "model": {**tokenizer["model"], "vocab": vocabulary}}


def _renamed_token(token: dict[str, Any]) -> dict[str, Any]:
    return {**token, "content": RENAMED_TOKENS.get(token["content"], token["content"])}
