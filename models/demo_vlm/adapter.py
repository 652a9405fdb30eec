# SPDX-License-Identifier: Apache-2.0
"""The low-rank adapter of the language model, in training and when it is merged for serving."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.demo_vlm.layout import LORA_RANK, LORA_SCALE


def merge_adapter(weight: Tensor, down: Tensor, up: Tensor, scale: Tensor | float) -> Tensor:
    """Compute weight + scale * up @ down in float32, rounded once to the weight's dtype."""
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


class AdaptedLinear(nn.Module):
    """A frozen linear layer with a trained change of its weight, `up` [out, rank] @ `down` [rank, in].

    The change is merged into the weight in each pass instead of being added to the output, so that training sees the
    rounding to bf16 that serving has.
    """

    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(LORA_RANK, linear.in_features, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(linear.out_features, LORA_RANK, dtype=torch.float32))
        nn.init.normal_(self.down, std=linear.in_features**-0.5)
        # A tensor, so that switching the adapter off does not recompile the layer.
        self.register_buffer("scale", torch.tensor(LORA_SCALE), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Apply the layer: [..., in] -> [..., out]."""
        return F.linear(hidden, merge_adapter(self.weight, self.down, self.up, self.scale))


def adapt(model: nn.Module) -> list[AdaptedLinear]:
    """Replace all linear layers in the decoder's layers; returns the new ones."""
    adapted: list[AdaptedLinear] = []
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and ".layers." in f".{name}":
            parent, _, own = name.rpartition(".")
            adapted.append(AdaptedLinear(module))
            setattr(model.get_submodule(parent), own, adapted[-1])
    return adapted
