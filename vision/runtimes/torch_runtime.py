# SPDX-License-Identifier: Apache-2.0
"""Run the tower in torch, on the CPU or one GPU."""

from collections.abc import Callable

import torch

from vision.options import VitOptions
from vision.runtimes.device import find_device, limit_threads
from vision.towers.compiled_tower import CompiledTower
from vision.towers.gpu_form import gpu_form
from vision.towers.registry import load_tower, tower_dtype
from vision.towers.weights import read_config


class TorchRuntime:
    """A `VisionRuntime` on torch. On a GPU the tower is compiled unless the options switch that off."""

    def __init__(self, options: VitOptions) -> None:
        device = find_device(options)
        limit_threads(options, device)
        tower, config = load_tower(options.vision, options.dtype, device), read_config(options.vision)
        # A tower of 16 bits rounds the one thing that it computes in float32, the patch embedding, to 16 bits.
        torch.backends.cuda.matmul.allow_tf32 = tower_dtype(config, options.dtype) is not torch.float32
        self.max_tiles = options.tile_budget
        self._forward: Callable[[torch.Tensor], torch.Tensor] = tower
        if device.type == "cuda" and options.compile is not False:
            size = int(config["image_size"])
            self._forward = CompiledTower(gpu_form(tower), size, options.tile_budget, device)
        self._device = device

    @torch.inference_mode()
    def run(self, tiles: torch.Tensor) -> torch.Tensor:
        """See `VisionRuntime.run`. Returns bfloat16."""
        if self._device.type == "cpu":
            return self._forward(tiles).to(torch.bfloat16)
        with torch.cuda.device(self._device):
            # Page-locked memory makes both copies asynchronous; torch keeps and reuses it.
            rows = self._forward(tiles.pin_memory().to(self._device, non_blocking=True)).to(torch.bfloat16)
            host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            host.copy_(rows, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        return host
