# SPDX-License-Identifier: Apache-2.0
"""Adapters on CPUs: each row of a batch gets the part of its own adapter, and rows of the base get none."""

import pytest
import torch
from vllm.lora.layers import LoRAMapping

from engines.vllm.cpu_lora import LoraOnCpu

INPUTS, RANK, SLICES, SCALE = 6, 4, (5, 3), 0.5
# Ids of the adapters of each token; 0 is the base. Both slots are in use.
TOKENS, SLOTS = (2, 2, 0, 7, 0), [7, 2]
REQUESTS = (2, 0, 7, 0)


@pytest.fixture
def wrapper(request: pytest.FixtureRequest) -> LoraOnCpu:
    made = LoraOnCpu(max_num_batched_tokens=16, max_batches=8, device="cpu")
    made.update_metadata(LoRAMapping(TOKENS, REQUESTS, is_prefill=request.param), SLOTS, len(SLOTS) + 1, 100)
    return made


phases = pytest.mark.parametrize("wrapper", [True, False], ids=["prefill", "decode"], indirect=True)


def weights(*shape: int) -> torch.Tensor:
    return torch.randn(len(SLOTS), 1, *shape, generator=torch.Generator().manual_seed(sum(shape)))


@phases
def test_linear_layers(wrapper: LoraOnCpu) -> None:
    x, y = torch.randn(len(TOKENS), INPUTS), torch.randn(len(TOKENS), sum(SLICES))
    lora_a, lora_b = [weights(RANK, INPUTS) for _ in SLICES], [weights(size, RANK) for size in SLICES]
    expected = y.clone()
    for row, adapter in enumerate(TOKENS):
        if adapter:
            slot = SLOTS.index(adapter)
            parts = [b[slot, 0] @ (a[slot, 0] @ x[row]) for a, b in zip(lora_a, lora_b, strict=True)]
            expected[row] += SCALE * torch.cat(parts)
    wrapper.add_lora_linear(y, x, tuple(lora_a), tuple(lora_b), SCALE, SLICES)
    torch.testing.assert_close(y, expected)


@phases
def test_embeddings_and_logits(wrapper: LoraOnCpu) -> None:
    x, y, lora_b = torch.randn(len(TOKENS), RANK), torch.zeros(len(TOKENS), 5), weights(5, RANK)
    wrapper.add_lora_embedding(y, x, lora_b)
    slots = [SLOTS.index(adapter) if adapter else None for adapter in TOKENS]
    expected = [torch.zeros(5) if slot is None else lora_b[slot, 0] @ x[row] for row, slot in enumerate(slots)]
    torch.testing.assert_close(y, torch.stack(expected))

    hidden, logits, lora_a = torch.randn(len(REQUESTS), INPUTS), torch.zeros(len(REQUESTS), 5), weights(RANK, INPUTS)
    wrapper.add_lora_logits(logits, hidden, lora_a, lora_b, SCALE)
    for row, adapter in enumerate(REQUESTS):
        slot = SLOTS.index(adapter) if adapter else 0
        part = SCALE * (lora_b[slot, 0] @ (lora_a[slot, 0] @ hidden[row]))
        torch.testing.assert_close(logits[row], part if adapter else torch.zeros(5))
