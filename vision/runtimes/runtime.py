# SPDX-License-Identifier: Apache-2.0
"""What the model asks of a vision runtime: tiles in, rows of the prompt embedding table out."""

from typing import Protocol

import torch


class VisionRuntime(Protocol):
    """Runs one vision tower with its projector. Built by a registry in `runtimes.py`; called on one thread.

    max_tiles: most tiles of one run.
    """

    max_tiles: int

    def run(self, tiles: torch.Tensor) -> torch.Tensor:
        """Uint8 [n, s, s, 3] on the CPU, 1 <= n <= max_tiles -> [n, tokens, llm_hidden] on the CPU, a float dtype.

        The result is the caller's: the next run does not touch it.
        """
