# SPDX-License-Identifier: Apache-2.0
"""A tower on the GPU, partly compiled and captured as CUDA graphs. All of that happens at load."""

from contextlib import AbstractContextManager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vision.towers.tower import Tower

# Largest run that is captured as a graph; the kernels of larger runs are launched one by one. On an H200
# InternViT-300M takes 1.41 ms a tile that way at 13 tiles and 1.31 ms as a graph, 1.30 and 1.27 ms at 26 tiles.
MAX_GRAPH_TILES = 32
HOPPER = (9, 0)
# torch takes the first backend that can compute it. For InternViT it would prefer FlashAttention 2, which takes 1.3 to
# 1.5 times as long as cuDNN on a Hopper GPU.
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class CompiledTower:
    """A tower for 1 to `max_tiles` tiles. Each call may overwrite the result of the previous one.

    Only `tower.modules_to_compile()` are compiled. Equal modules share their code, which takes seconds instead of
    minutes. The tile count is dynamic, so that no run is padded. One compilation for each tile count was not faster,
    and autotuning took over 40 s for each.
    """

    def __init__(self, tower: Tower, tile_size: int, max_tiles: int, device: torch.device) -> None:
        self._tower = tower
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._hopper = torch.cuda.get_device_capability(device) >= HOPPER
        for module in tower.modules_to_compile():
            module.compile(dynamic=True)
        with torch.inference_mode(), torch.cuda.device(device), self._attention():
            self._tiles = torch.zeros(max_tiles, tile_size, tile_size, 3, dtype=torch.uint8, device=device)
            # The first run compiles the modules and shows now if there is too little memory.
            self._rows = tower(self._tiles)[:MAX_GRAPH_TILES].clone()
            self._capture()
            # Graphs have a memory pool of their own; free what the first runs took.
            torch.cuda.empty_cache()

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Run uint8 [n, s, s, 3] on the device -> [n, tokens, llm_hidden]."""
        count = len(tiles)
        if count not in self._graphs:
            with self._attention():
                return self._tower(tiles)
        self._tiles[:count].copy_(tiles)
        self._graphs[count].replay()
        return self._rows[:count]

    def _attention(self) -> AbstractContextManager[None]:
        return sdpa_kernel(ATTENTION, set_priority=self._hopper)

    def _capture(self) -> None:
        """Capture a graph for each tile count, the largest first: its memory serves the smaller ones."""
        pool = torch.cuda.graph_pool_handle()
        for count in range(len(self._rows), 0, -1):
            tiles, rows = self._tiles[:count], self._rows[:count]
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch does not annotate it
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                # A run before the capture, in which libraries initialise themselves for this size.
                self._tower(tiles)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                rows.copy_(self._tower(tiles))
            self._graphs[count] = graph
