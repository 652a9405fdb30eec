# SPDX-License-Identifier: Apache-2.0
"""LoRA for vLLM on CPUs.

vLLM's own (0.25 to 0.33) marks tokens of the base with the index -1, by which PyTorch takes the weights of the last
adapter: requests without an adapter get that one's answers. It also copies the weights for each token of a batch.
"""

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.platforms import current_platform
from vllm.v1.worker.cpu_worker import CPUWorker


class LoraOnCpu(PunicaWrapperCPU):
    """Adds the adapters' part to the outputs of the base, one adapter of the batch after the other."""

    def update_metadata(self, *arguments: Any, **more: Any) -> None:
        """Note the rows of each adapter for the next step."""
        super().update_metadata(*arguments, **more)
        indices = self.token_lora_indices
        self._rows = [(index, (indices == index).nonzero().flatten()) for index in set(indices.tolist())]

    def _apply_shrink(self, y: torch.Tensor, x: torch.Tensor, w_t_all: torch.Tensor, scale: float) -> None:
        """Write x [tokens, inputs] times lora_A into y [tokens, rank]; w_t_all: [slots, 1, rank, inputs]."""
        for index, rows in self._rows:
            if index >= 0:
                lora_a = w_t_all[index].flatten(0, -2)
                y[rows, : len(lora_a)] = scale * (x[rows].to(y.dtype) @ lora_a.to(y.dtype).T)

    def _apply_expand(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        w_t_all: torch.Tensor,
        y_offset: int,
        y_slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        """Add x [tokens, rank] times lora_B to a part of y [tokens, outputs]; w_t_all: [slots, 1, size, rank]."""
        part = y[:, y_offset : y_offset + y_slice_size]
        for index, rows in self._rows:
            if index >= 0:
                product = (x[rows] @ w_t_all[index].flatten(0, -2).to(x.dtype).T).to(y.dtype)
                part[rows] = part[rows] + product if add_inputs else product

    def add_lora_embedding(self, y: torch.Tensor, x: torch.Tensor, *arguments: Any, **more: Any) -> None:
        """Add the adapters' part of the embeddings y, for rows with an adapter."""
        super().add_lora_embedding(y, _only(x, self.token_lora_indices), *arguments, **more)

    def add_lora_logits(self, y: torch.Tensor, x: torch.Tensor, *arguments: Any, **more: Any) -> None:
        """Add the adapters' part of the logits y, for rows with an adapter."""
        super().add_lora_logits(y, _only(x.view(-1, x.shape[-1]), self.sampler_indices), *arguments, **more)


def _only(x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """The rows of x with 0 for those of the base, to which every adapter then adds 0."""
    return x.masked_fill((indices < 0)[: len(x), None], 0)


def install() -> None:
    """Let vLLM's CPU workers use LoraOnCpu; in each process that loads a model."""
    name = f"{LoraOnCpu.__module__}.{LoraOnCpu.__qualname__}"
    type(current_platform).get_punica_wrapper = classmethod(lambda cls: name)  # type: ignore[method-assign, assignment]


class LoraWorker(CPUWorker):
    """vLLM's CPU worker; importing this module installs the above."""


install()
