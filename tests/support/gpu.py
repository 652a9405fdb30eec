# SPDX-License-Identifier: Apache-2.0
"""What stacks of the tests take of a GPU's memory."""

import torch


def memory_share(share: float) -> list[str]:
    """The launcher's flags for a stack that runs beside another one: its share of the GPU's memory, 0 to 1.

    None without a GPU. By default an engine takes nine tenths.
    """
    return ["--gpu-memory-utilization", str(share)] if torch.cuda.is_available() else []
