# SPDX-License-Identifier: Apache-2.0
"""Low-rank changes of the language model's weights, trained through the very weights that are served."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.demo_vlm.layout import LORA_RANK, LORA_SCALE


def merged(weight: Tensor, down: Tensor, up: Tensor, scale: Tensor | float) -> Tensor:
    """weight + scale * up @ down in float32, rounded to the weight's dtype once."""
    return (weight.float() + scale * (up.float() @ down.float())).to(weight.dtype)


class AdaptedLinear(nn.Module):
    """A frozen linear layer whose weight is changed by `up` [out, rank] @ `down` [rank, in].

    The changed weight is made as a whole, not added to the output, so that training sees its rounding to bf16.
    """

    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = linear.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(LORA_RANK, linear.in_features, dtype=torch.float32))
        self.up = nn.Parameter(torch.zeros(linear.out_features, LORA_RANK, dtype=torch.float32))
        nn.init.normal_(self.down, std=linear.in_features**-0.5)
        # A tensor, so that switching the change off does not compile the layer again.
        self.register_buffer("scale", torch.tensor(LORA_SCALE), persistent=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, merged(self.weight, self.down, self.up, self.scale))


def adapt(model: nn.Module) -> list[AdaptedLinear]:
    """Replace every linear layer of the decoder's layers; returns the new ones."""
    adapted: list[AdaptedLinear] = []
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and ".layers." in f".{name}":
            parent, _, own = name.rpartition(".")
            adapted.append(AdaptedLinear(module))
            setattr(model.get_submodule(parent), own, adapted[-1])
    return adapted
