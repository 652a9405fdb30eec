# SPDX-License-Identifier: Apache-2.0
"""The plan of a split: the tensors to write, known from names and shapes before any weight is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

# name in a config.json -> (code in a safetensors header, torch dtype)
DTYPES: dict[str, tuple[str, torch.dtype]] = {
    "bfloat16": ("BF16", torch.bfloat16),
    "float16": ("F16", torch.float16),
    "float32": ("F32", torch.float32),
}

Shape = tuple[int, ...]
Build = Callable[[Sequence[torch.Tensor]], torch.Tensor]


def _as_is(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return tensors[0]


def concatenated(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate the tensors along their rows."""
    return torch.cat(tuple(tensors))


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One tensor to write. sources: names in the checkpoint, whose tensors `build` gets in this order."""

    name: str
    shape: Shape
    sources: tuple[str, ...]
    build: Build = _as_is

    def size(self, dtype: str) -> int:
        """Bytes when written as `dtype`."""
        return prod(self.shape) * DTYPES[dtype][1].itemsize


@dataclass(frozen=True, slots=True)
class Part:
    """One of the two parts that a split writes. config: its config.json, still without the dtype."""

    config: Mapping[str, Any]
    tensors: tuple[OutputTensor, ...]

    def shapes(self) -> dict[str, Shape]:
        """Shapes of the tensors by name."""
        return {tensor.name: tensor.shape for tensor in self.tensors}

    def width(self) -> int:
        """The language model's hidden size: the columns of its embedding."""
        return self.shapes().get("model.embed_tokens.weight", (0, 0))[1]

    def size(self, dtype: str) -> int:
        """Bytes of all tensors when written as `dtype`."""
        return sum(tensor.size(dtype) for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole split. text: the causal-LM checkpoint. vision: tower and projector."""

    text: Part
    vision: Part
    # Tokens that the tokenizer must have: prompts with images contain them.
    needed_tokens: tuple[str, ...] = ()
