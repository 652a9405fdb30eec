# SPDX-License-Identifier: Apache-2.0
"""InternViT (300M and 6B) with pixel shuffle and projector, for InternVL2.5."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from vision.towers.tower import Tower
from vision.towers.weights import assign, read_tensors

try:
    from vision.towers import tile_attention

    HAS_KERNEL = True
except ImportError:
    # PyTorch's CPU builds come without the package triton.
    HAS_KERNEL = False

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"gelu": F.gelu}
# nn.LayerNorm's default, which the published projectors were trained with.
PROJECTOR_EPS = 1e-5
PATCH_WEIGHT, PATCH_BIAS = "embeddings.patch_embedding.weight", "embeddings.patch_embedding.bias"


@dataclass(frozen=True, slots=True)
class InternVitConfig:
    """The keys of vision/config.json that define the tower. image_mean, image_std: of pixel values from 0 to 1."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    patch_size: int
    hidden_act: str
    norm_type: str
    layer_norm_eps: float
    qkv_bias: bool
    qk_normalization: bool
    downsample_ratio: float
    llm_hidden_size: int
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> "InternVitConfig":
        """Read the keys. Raises ValueError with the key if it is missing or its value is not supported."""
        missing = sorted({field.name for field in fields(cls)} - config.keys())
        if missing:
            raise ValueError(f"vision tower: config.json lacks {', '.join(missing)}")
        for key, known in (("norm_type", NORMS), ("hidden_act", ACTIVATIONS)):
            if config[key] not in known:
                raise ValueError(f"vision tower: unknown {key} '{config[key]}'; known: {', '.join(sorted(known))}")
        built = cls(**{field.name: config[field.name] for field in fields(cls)})
        for key, multiple, of in (
            ("image_size", built.image_size, built.patch_size * built.block),
            ("hidden_size", built.hidden_size, built.num_attention_heads),
        ):
            if multiple % of:
                raise ValueError(f"vision tower: {key} {multiple} is not a multiple of {of}")
        return built

    @property
    def grid(self) -> int:
        """Patches along each side of a tile."""
        return self.image_size // self.patch_size

    @property
    def block(self) -> int:
        """Patches along each side of the square that pixel shuffle merges into one token."""
        return round(1 / self.downsample_ratio)


class RmsNorm(nn.Module):
    """Root mean square norm in float32, rounded before the weight is applied, as in the published model."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Norm [..., size] -> the same shape and dtype."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._eps)
        return self.weight * wide.to(x.dtype)


NORMS: dict[str, Callable[[int, float], nn.Module]] = {"layer_norm": nn.LayerNorm, "rms_norm": RmsNorm}


class PatchEmbedding(nn.Module):
    """The patch convolution as one matrix product in float32 on raw bytes. The weight includes the normalisation.

    Float32, because bytes have no zero mean, and this product is only a five-hundredth of the tower's work. Float32 is
    slow on a GPU; towers of 16 bits use TF32 there, which represents each byte exactly.
    """

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self._patch, self._grid, self._channels = config.patch_size, config.grid, config.num_channels
        size = config.patch_size**2 * config.num_channels
        self.weight = nn.Parameter(torch.empty(config.hidden_size, size, dtype=torch.float32))
        self.bias = nn.Parameter(torch.empty(config.hidden_size, dtype=torch.float32))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Embed uint8 [n, s, s, 3] -> float32 [n, patches, hidden]."""
        # Cast first: in TensorRT uint8 is only supported as an input of the network.
        x = tiles.to(torch.float32)
        x = x.reshape(-1, self._grid, self._patch, self._grid, self._patch, self._channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self._grid**2, self._patch**2 * self._channels)
        return F.linear(x, self.weight, self.bias)


class Embeddings(nn.Module):
    """The class token and the patch embeddings, with position embeddings added."""

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(1, 1, config.hidden_size))
        self.patch_embedding = PatchEmbedding(config)
        self.position_embedding = nn.Parameter(torch.empty(1, 1 + config.grid**2, config.hidden_size))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Embed uint8 [n, s, s, 3] -> [n, 1 + patches, hidden]."""
        patches = self.patch_embedding(tiles).to(self.class_embedding.dtype)
        first = self.class_embedding.expand(patches.shape[0], -1, -1)
        return torch.cat((first, patches), dim=1) + self.position_embedding


class Attention(nn.Module):
    """Self-attention within a tile. The 6B model norms queries and keys over the whole hidden size."""

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self._heads = config.num_attention_heads
        self._normed = config.qk_normalization
        self.qkv = nn.Linear(size, 3 * size, bias=config.qkv_bias)
        self.proj = nn.Linear(size, size)
        if config.qk_normalization:
            self.q_norm = RmsNorm(size, config.layer_norm_eps)
            self.k_norm = RmsNorm(size, config.layer_norm_eps)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        """Compute attention without the output projection: [n, t, hidden] -> the same shape."""
        qkv: torch.Tensor = self.qkv(x)
        if HAS_KERNEL and not self._normed and tile_attention.is_supported(qkv, self._heads):
            return tile_attention.attend(qkv, self._heads)
        q, k, v = qkv.chunk(3, dim=-1)
        if self._normed:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (torch.unflatten(part, -1, (self._heads, -1)).transpose(1, 2) for part in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute attention: [n, t, hidden] -> the same shape."""
        out: torch.Tensor = self.proj(self.attend(x))
        return out


class Mlp(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)
        self._activation = ACTIVATIONS[config.hidden_act]

    def up_project(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the first layer and the activation: [n, t, hidden] -> [n, t, intermediate]."""
        if self._activation is F.gelu and x.is_cuda and x.dtype is torch.bfloat16:
            return linear_gelu(self.fc1, x)
        return self._activation(self.fc1(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply both layers: [n, t, hidden] -> the same shape."""
        out: torch.Tensor = self.fc2(self.up_project(x))
        return out


def linear_gelu(linear: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    """Apply a linear layer and GELU, [..., in] -> [..., out]. On a GPU both are one matrix product.

    cuBLAS computes the tanh form of GELU, which differs by at most 0.0005. With random weights the bfloat16 rows of
    InternViT-300M differed from float32's by 0.0099 of their size with either form.
    """
    flat: torch.Tensor = torch.ops.aten._addmm_activation(
        linear.bias, x.flatten(0, -2), linear.weight.t(), use_gelu=True
    )
    return torch.unflatten(flat, 0, x.shape[:-1])


class Layer(nn.Module):
    """A pre-norm transformer layer with LayerScale: both results are scaled by a vector before they are added."""

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        norm = NORMS[config.norm_type]
        self.norm1 = norm(config.hidden_size, config.layer_norm_eps)
        self.attn = Attention(config)
        self.ls1 = nn.Parameter(torch.empty(config.hidden_size))
        self.norm2 = norm(config.hidden_size, config.layer_norm_eps)
        self.mlp = Mlp(config)
        self.ls2 = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the layer: [n, t, hidden] -> the same shape."""
        attended: torch.Tensor = self.attn(self.norm1(x))
        x = x + self.ls1 * attended
        mixed: torch.Tensor = self.mlp(self.norm2(x))
        return x + self.ls2 * mixed


class Projector(nn.Module):
    """Pixel shuffle and an MLP, from patches to tokens of the language model's hidden size."""

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self._grid, self._block = config.grid, config.block
        size = config.hidden_size * config.block**2
        self.norm = nn.LayerNorm(size, PROJECTOR_EPS)
        self.fc1 = nn.Linear(size, config.llm_hidden_size)
        self.fc2 = nn.Linear(config.llm_hidden_size, config.llm_hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project [n, 1 + patches, hidden] -> [n, tokens, llm_hidden]. The class token is dropped."""
        x = pixel_shuffle(x[:, 1:], self._grid, self._block)
        rows: torch.Tensor = self.fc2(F.gelu(self.fc1(self.norm(x))))
        return rows


class InternVit(Tower):
    """InternViT with its projector. Parameters are named as in vision/model.safetensors."""

    def __init__(self, config: InternVitConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.projector = Projector(config)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Embed uint8 [n, s, s, 3] -> [n, tokens, llm_hidden]. There is no final norm."""
        x: torch.Tensor = self.embeddings(tiles)
        for layer in self.layers:
            x = layer(x)
        embeddings: torch.Tensor = self.projector(x)
        return embeddings


def pixel_shuffle(x: torch.Tensor, grid: int, block: int) -> torch.Tensor:
    """Merge blocks of patches into tokens: [n, grid^2, c] -> [n, (grid / block)^2, c * block^2].

    Rows come first (`ps_version` v2 of the published configurations).
    """
    side, channels = grid // block, x.shape[-1]
    x = x.reshape(-1, side, block, side, block, channels).transpose(2, 3)
    return x.reshape(-1, side * side, block * block * channels)


def load(folder: Path, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> InternVit:
    """Load the tower with the weights of the vision folder. Raises ValueError if they do not fit the config."""
    shape = InternVitConfig.from_json(config)
    with torch.device("meta"):
        tower = InternVit(shape)
    tensors = fold_normalisation(read_tensors(folder, device), shape)
    wide = (PATCH_WEIGHT, PATCH_BIAS)
    assign(tower, {name: tensor.to(torch.float32 if name in wide else dtype) for name, tensor in tensors.items()})
    return tower


def fold_normalisation(tensors: dict[str, torch.Tensor], config: InternVitConfig) -> dict[str, torch.Tensor]:
    """Fold the image normalisation into the patch embedding.

    Its weight [h, 3, p, p] and bias are for (x / 255 - mean) / std; the returned weight [h, p * p * 3] and bias are for
    the bytes x. Returns `tensors` as they are if one of the two is missing; `assign` reports it.
    """
    if PATCH_WEIGHT not in tensors or PATCH_BIAS not in tensors:
        return tensors
    weight, bias = tensors[PATCH_WEIGHT].double(), tensors[PATCH_BIAS].double()
    mean, std = (weight.new_tensor(values).view(-1, 1, 1) for values in (config.image_mean, config.image_std))
    bias = bias - (weight * (mean / std)).sum((1, 2, 3))
    weight = (weight / (255 * std)).permute(0, 2, 3, 1).flatten(1)
    return tensors | {PATCH_WEIGHT: weight.float(), PATCH_BIAS: bias.float()}
