# SPDX-License-Identifier: Apache-2.0
"""InternViT for a GPU: the matrix products of each layer add their results to the residual stream themselves.

That saves two passes over [n, t, hidden] in each layer. LayerScale is folded into the weights. The products cannot add
their biases; these are summed over the layers at load, and the sum so far is added whenever the stream is read.
"""

import copy

import torch
from torch import nn

from vision.towers.internvit import InternVit, Layer, Projector
from vision.towers.tower import Tower


class ShiftedNorm(nn.Module):
    """A norm in float32 that adds the missing biases to the stream first. shift: their sum so far, float32 [hidden]."""

    shift: torch.Tensor

    def __init__(self, norm: nn.Module, shift: torch.Tensor) -> None:
        super().__init__()
        self._norm = copy.deepcopy(norm).float()
        self.register_buffer("shift", shift)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Norm [n, t, hidden] -> the same shape and dtype."""
        normed: torch.Tensor = self._norm(stream + self.shift)
        return normed.to(stream.dtype)


class FusedLayer(nn.Module):
    """A layer that updates the residual stream in place. shift: float32 [hidden], the sum of the biases before it."""

    def __init__(self, layer: Layer, shift: torch.Tensor) -> None:
        super().__init__()
        self.norm1 = ShiftedNorm(layer.norm1, shift)
        attn_bias, self._attn_weight = scale_linear(layer.attn.proj, layer.ls1)
        self.norm2 = ShiftedNorm(layer.norm2, shift + attn_bias)
        mlp_bias, self._mlp_weight = scale_linear(layer.mlp.fc2, layer.ls2)
        self.shift = shift + attn_bias + mlp_bias
        self.attn, self.mlp = layer.attn, layer.mlp
        # Replaced by the scaled copies.
        del self.attn.proj, self.mlp.fc2

    def forward(self, stream: torch.Tensor) -> None:
        """Add the layer's results to [n, t, hidden], which must be contiguous."""
        rows = stream.flatten(0, 1)
        rows.addmm_(self.attn.attend(self.norm1(stream)).flatten(0, 1), self._attn_weight)
        rows.addmm_(self.mlp.up_project(self.norm2(stream)).flatten(0, 1), self._mlp_weight)


class FusedInternVit(Tower):
    """InternViT in its GPU form. Its results differ from the tower's by the rounding of the scaled weights."""

    def __init__(self, tower: InternVit) -> None:
        """Take over the modules of `tower`, which must not be used afterwards."""
        super().__init__()
        self.embeddings = tower.embeddings
        layers = [module for module in tower.layers if isinstance(module, Layer)]
        shift = torch.zeros_like(layers[0].ls1, dtype=torch.float32)
        fused: list[FusedLayer] = []
        for layer in layers:
            fused.append(FusedLayer(layer, shift))
            shift = fused[-1].shift
        self.layers = nn.ModuleList(fused)
        self.projector = ShiftedProjector(tower.projector, shift)

    def modules_to_compile(self) -> list[nn.Module]:
        """List the passes over memory; matrix products and attention are library calls either way."""
        norms = [module for module in self.layers.modules() if isinstance(module, ShiftedNorm)]
        return [self.embeddings, *norms, self.projector]

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Embed uint8 [n, s, s, 3] -> [n, tokens, llm_hidden]."""
        stream: torch.Tensor = self.embeddings(tiles)
        for layer in self.layers:
            layer(stream)
        embeddings: torch.Tensor = self.projector(stream)
        return embeddings


class ShiftedProjector(nn.Module):
    """The projector, which adds the missing biases to the stream first. shift: their sum, float32 [hidden]."""

    shift: torch.Tensor

    def __init__(self, projector: Projector, shift: torch.Tensor) -> None:
        super().__init__()
        self._projector = projector
        self.register_buffer("shift", shift)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """Project [n, 1 + patches, hidden] -> [n, tokens, llm_hidden]."""
        embeddings: torch.Tensor = self._projector((stream + self.shift).to(stream.dtype))
        return embeddings


def scale_linear(linear: nn.Linear, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold a scale [out] into a linear layer. Returns its bias, float32 [out], and its weight, transposed [in, out]."""
    weight = (linear.weight.float() * scale.float().unsqueeze(1)).to(linear.weight.dtype)
    return linear.bias.float() * scale.float(), weight.t()
