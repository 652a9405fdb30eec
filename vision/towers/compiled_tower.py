# SPDX-License-Identifier: Apache-2.0
"""A tower on the GPU: partly compiled, captured as CUDA graphs. Prepared whole at load."""

from contextlib import AbstractContextManager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from vision.towers.tower import Tower

# Most tiles of a run that is a graph; larger runs are launched piece by piece. InternViT-300M takes an H200 1.41 ms a
# tile that way at 13 tiles and 1.31 as a graph, 1.30 and 1.27 at 26.
MAX_GRAPH_TILES = 32
# The first that can compute it is taken. For InternViT torch prefers FlashAttention 2, which takes a Hopper GPU 1.3 to
# 1.5 times as long as cuDNN.
HOPPER = (9, 0)
ATTENTION = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class CompiledTower:
    """Same call as the tower's, for 1 to `max_tiles` tiles. A graph's result is overwritten by the next call.

    tower: one in its form for GPUs; `compiled()` lists its modules that gain by compiling. Equal ones share their code,
    which takes seconds where the whole tower takes minutes, and with a dynamic tile count no run is padded; one
    compilation for each count was not faster, and autotuning took over 40 s for each of them.
    """

    def __init__(self, tower: Tower, tile_size: int, max_tiles: int, device: torch.device) -> None:
        self._tower = tower
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._hopper = torch.cuda.get_device_capability(device) >= HOPPER
        for module in tower.modules_to_compile():
            module.compile(dynamic=True)
        with torch.inference_mode(), torch.cuda.device(device), self._attention():
            self._tiles = torch.zeros(max_tiles, tile_size, tile_size, 3, dtype=torch.uint8, device=device)
            # A full run first: it compiles, and too little memory is found out now.
            self._rows = tower(self._tiles)[:MAX_GRAPH_TILES].clone()
            self._capture()
            # What the first runs took is not needed again: graphs have memory of their own.
            torch.cuda.empty_cache()

    def __call__(self, tiles: torch.Tensor) -> torch.Tensor:
        """Uint8 [n, s, s, 3] on the device -> [n, tokens, llm_hidden]."""
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
                # Libraries set themselves up for this size.
                self._tower(tiles)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                rows.copy_(self._tower(tiles))
            self._graphs[count] = graph
