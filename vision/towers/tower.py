# SPDX-License-Identifier: Apache-2.0
"""The interface of a vision tower in torch."""

from typing import TYPE_CHECKING

import torch
from torch import nn


class Tower(nn.Module):
    """A vision tower with its projector: uint8 tiles [n, s, s, 3] -> embeddings [n, tokens, llm_hidden]."""

    if TYPE_CHECKING:

        def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
            """See the class."""

    def modules_to_compile(self) -> list[nn.Module]:
        """List the modules that run faster on a GPU when torch compiles them."""
        return []
