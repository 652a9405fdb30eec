# SPDX-License-Identifier: Apache-2.0
"""The vision tower and projector for training. Parameters are named as in `vision/model.safetensors`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.demo_vlm.layout import VISION_CONFIG

_HIDDEN: int = VISION_CONFIG["hidden_size"]
_HEADS: int = VISION_CONFIG["num_attention_heads"]
_SIDE: int = VISION_CONFIG["image_size"] // VISION_CONFIG["patch_size"]
_EPS: float = VISION_CONFIG["layer_norm_eps"]


class _Embeddings(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        patch = VISION_CONFIG["patch_size"]
        self.class_embedding = nn.Parameter(torch.randn(1, 1, _HIDDEN) * 0.02)
        self.patch_embedding = nn.Conv2d(VISION_CONFIG["num_channels"], _HIDDEN, patch, patch)
        self.position_embedding = nn.Parameter(torch.randn(1, 1 + _SIDE * _SIDE, _HIDDEN) * 0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        # The convolution as a matrix product, which is faster; patches do not overlap.
        kernel = self.patch_embedding
        side = kernel.kernel_size[0]
        patches = pixels.unfold(2, side, side).unfold(3, side, side).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
        embedded = F.linear(patches, kernel.weight.flatten(1), kernel.bias)
        whole = torch.cat([self.class_embedding.expand(len(pixels), -1, -1).to(embedded.dtype), embedded], dim=1)
        return whole + self.position_embedding


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(_HIDDEN, 3 * _HIDDEN)
        self.proj = nn.Linear(_HIDDEN, _HIDDEN)

    def forward(self, hidden: Tensor) -> Tensor:
        tiles, tokens, _ = hidden.shape
        query, key, value = self.qkv(hidden).view(tiles, tokens, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        attended: Tensor = self.proj(mixed.transpose(1, 2).reshape(tiles, tokens, _HIDDEN))
        return attended


class _Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(_HIDDEN, VISION_CONFIG["intermediate_size"])
        self.fc2 = nn.Linear(VISION_CONFIG["intermediate_size"], _HIDDEN)

    def forward(self, hidden: Tensor) -> Tensor:
        mixed: Tensor = self.fc2(F.gelu(self.fc1(hidden)))
        return mixed


class Layer(nn.Module):
    """A pre-norm transformer layer with LayerScale."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_HIDDEN, eps=_EPS)
        self.attn = _Attention()
        self.ls1 = nn.Parameter(torch.ones(_HIDDEN))
        self.norm2 = nn.LayerNorm(_HIDDEN, eps=_EPS)
        self.mlp = _Mlp()
        self.ls2 = nn.Parameter(torch.ones(_HIDDEN))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.ls1 * self.attn(self.norm1(hidden))
        changed: Tensor = hidden + self.ls2 * self.mlp(self.norm2(hidden))
        return changed


class _Projector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * _HIDDEN)
        self.fc1 = nn.Linear(4 * _HIDDEN, VISION_CONFIG["llm_hidden_size"])
        self.fc2 = nn.Linear(VISION_CONFIG["llm_hidden_size"], VISION_CONFIG["llm_hidden_size"])

    def forward(self, merged: Tensor) -> Tensor:
        rows: Tensor = self.fc2(F.gelu(self.fc1(self.norm(merged))))
        return rows


class Vision(nn.Module):
    """The vision tower with its projector."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = _Embeddings()
        self.layers = nn.ModuleList(Layer() for _ in range(VISION_CONFIG["num_hidden_layers"]))
        self.projector = _Projector()
        mean, std = (torch.tensor(VISION_CONFIG[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def patches(self, tiles: Tensor) -> Tensor:
        """Run the tower: uint8 [tiles, side, side, 3] -> [tiles, patches, hidden], without the class token."""
        pixels = (tiles.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        hidden: Tensor = self.embeddings(pixels)
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden[:, 1:]

    def project(self, patches: Tensor) -> Tensor:
        """Project [tiles, patches, hidden] -> [tiles, tokens per tile, language model's hidden size]."""
        rows: Tensor = self.projector(shuffle(patches))
        return rows


def shuffle(patches: Tensor) -> Tensor:
    """Apply InternVL's pixel shuffle (v2, ratio 0.5): 2 x 2 patches become one token of four times the size."""
    tiles, _, hidden = patches.shape
    grid = patches.view(tiles, _SIDE, _SIDE // 2, 2 * hidden).permute(0, 2, 1, 3)
    grid = grid.reshape(tiles, _SIDE // 2, _SIDE // 2, 4 * hidden).permute(0, 2, 1, 3)
    return grid.reshape(tiles, -1, 4 * hidden)
