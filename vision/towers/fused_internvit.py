# SPDX-License-Identifier: Apache-2.0
"""InternViT for a GPU: each layer's two results are added to the stream by the products that compute them.

Two passes over [n, t, hidden] less a layer. LayerScale goes into the weights, and what the products cannot add, their
biases, is summed beforehand over the layers and added where the stream is read.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from vision.towers.internvit import InternVit, Layer


class ShiftedNorm(nn.Module):
    """A norm in float32 of what the stream lacks its biases for. shift: float32 [hidden], their sum so far."""

    def __init__(self, norm: nn.Module, shift: torch.Tensor) -> None:
        super().__init__()
        self._norm = copy.deepcopy(norm).float()
        self.register_buffer("shift", shift)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """[n, t, hidden] -> the same."""
        return self._norm(stream + self.shift).to(stream.dtype)


class FusedLayer(nn.Module):
    """A layer that changes its argument. shift: the biases of the layers before."""

    def __init__(self, layer: "Layer", shift: torch.Tensor) -> None:
        super().__init__()
        self.norm1 = ShiftedNorm(layer.norm1, shift)
        attended, self._attended = scaled(layer.attn.proj, layer.ls1)
        self.norm2 = ShiftedNorm(layer.norm2, shift + attended)
        widened, self._widened = scaled(layer.mlp.fc2, layer.ls2)
        self.shift = shift + attended + widened
        self.attn, self.mlp = layer.attn, layer.mlp
        # Their weights are in the scaled copies.
        del self.attn.proj, self.mlp.fc2

    def forward(self, stream: torch.Tensor) -> None:
        """[n, t, hidden], contiguous."""
        rows = stream.flatten(0, 1)
        rows.addmm_(self.attn.mix(self.norm1(stream)).flatten(0, 1), self._attended)
        rows.addmm_(self.mlp.widen(self.norm2(stream)).flatten(0, 1), self._widened)


class FusedInternVit(nn.Module):
    """Same call as the tower's, which is used up. Results differ by the rounding of the scaled weights."""

    def __init__(self, tower: "InternVit") -> None:
        super().__init__()
        self.embeddings = tower.embeddings
        shift = torch.zeros_like(tower.layers[0].ls1, dtype=torch.float32)
        layers = []
        for layer in tower.layers:
            layers.append(FusedLayer(layer, shift))
            shift = layers[-1].shift
        self.layers = nn.ModuleList(layers)
        self.projector = ShiftedProjector(tower.projector, shift)

    def compiled(self) -> list[nn.Module]:
        """What gains by compiling: the passes over memory. Products and attention are the libraries' either way."""
        norms = [norm for layer in self.layers for norm in (layer.norm1, layer.norm2)]
        return [self.embeddings, *norms, self.projector]

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Uint8 [n, s, s, 3] -> [n, tokens, llm_hidden]."""
        stream = self.embeddings(tiles)
        for layer in self.layers:
            layer(stream)
        return self.projector(stream)


class ShiftedProjector(nn.Module):
    """The projector of what the stream lacks its biases for."""

    def __init__(self, projector: nn.Module, shift: torch.Tensor) -> None:
        super().__init__()
        self._projector = projector
        self.register_buffer("shift", shift)

    def forward(self, stream: torch.Tensor) -> torch.Tensor:
        """[n, 1 + patches, hidden] -> [n, tokens, llm_hidden]."""
        return self._projector((stream + self.shift).to(stream.dtype))


def scaled(linear: nn.Linear, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Float32 bias [out] and weight [in, out] in its own dtype, of the layer followed by the scale [out]."""
    weight = (linear.weight.float() * scale.float().unsqueeze(1)).to(linear.weight.dtype)
    return linear.bias.float() * scale.float(), weight.t()
