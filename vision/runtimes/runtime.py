# SPDX-License-Identifier: Apache-2.0
"""The interface of a vision runtime: tiles in, rows of the prompt embedding table out."""

from typing import Protocol

import torch


class VisionRuntime(Protocol):
    """Runs one vision tower with its projector. Built by `vision.runtimes.registry`; called on one thread.

    max_tiles: maximum number of tiles in one run.
    """

    max_tiles: int

    def run(self, tiles: torch.Tensor) -> torch.Tensor:
        """Run the tower on uint8 [n, s, s, 3]; returns [n, tokens, llm_hidden] of a float dtype. Both on the CPU.

        1 <= n <= max_tiles. The next run does not overwrite the result.
        """
