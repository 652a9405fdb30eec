# SPDX-License-Identifier: Apache-2.0
"""CPU worker for vLLM with bidirectional attention within images, which vLLM has only on GPUs.

An image's tokens are all in one prefill chunk (scheduler.py). So a chunk is attended in parts, as if each were a
sequence on the same cached keys: text before an image causally, the image without a mask and up to its own end, text
after it causally again.
"""

from dataclasses import replace
from typing import Any

import torch
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionMetadata, CPUAttentionMetadataBuilder
from vllm.v1.attention.backends.registry import AttentionBackendEnum, register_backend

from engines.vllm.cpu_lora import LoraWorker
from engines.vllm.versions import CAUSAL_DTYPE


class ImageWorker(LoraWorker):
    """vLLM's CPU worker, also for adapters; importing this module registers the attention backend below."""


class ImageAttentionBuilder(CPUAttentionMetadataBuilder):
    """Splits chunks with images into parts."""

    def build(
        self, common_prefix_len: int, common_attn_metadata: CommonAttentionMetadata, fast_build: bool = False
    ) -> CPUAttentionMetadata:
        """Build vLLM's metadata of the parts."""
        return super().build(common_prefix_len, in_parts(common_attn_metadata), fast_build)


@register_backend(AttentionBackendEnum.CPU_ATTN)
class ImageAttentionBackend(CPUAttentionBackend):
    """vLLM's CPU attention with `ImageAttentionBuilder`."""

    @classmethod
    def supports_mm_prefix(cls) -> bool:
        """Whether attention within images may be bidirectional."""
        return True

    @staticmethod
    def get_builder_cls() -> type[CPUAttentionMetadataBuilder]:
        """The class that makes the metadata of a step."""
        return ImageAttentionBuilder


def in_parts(step: CommonAttentionMetadata) -> CommonAttentionMetadata:
    """The step with one sequence per part; the step itself if it computes no image."""
    starts, ends = step.query_start_loc_cpu.tolist(), step.seq_lens.tolist()
    parts: list[tuple[int, int, int, bool]] = []
    for row in range(step.num_reqs):
        first = ends[row] - (starts[row + 1] - starts[row])
        images = (step.mm_req_doc_ranges or {}).get(row, [])
        parts += [(row, *part) for part in row_parts(first, ends[row], images)]
    if all(causal for *_, causal in parts):
        return step
    rows, firsts, lasts, causal = (list(column) for column in zip(*parts, strict=True))
    lengths = torch.tensor([last - first for first, last in zip(firsts, lasts, strict=True)])
    query_start_loc = torch.zeros(len(parts) + 1, dtype=step.query_start_loc.dtype)
    query_start_loc[1:] = lengths.cumsum(0)
    return replace(
        step,
        num_reqs=len(parts),
        query_start_loc=query_start_loc,
        query_start_loc_cpu=query_start_loc,
        seq_lens=torch.tensor(lasts, dtype=step.seq_lens.dtype),
        max_query_len=int(lengths.max()),
        block_table_tensor=step.block_table_tensor[rows],
        causal=torch.tensor(causal, dtype=CAUSAL_DTYPE),
    )


def row_parts(first: int, end: int, images: list[tuple[int, int]]) -> list[Any]:
    """(first, end, causal) for each part of the tokens from `first` to before `end`; images are (first, last)."""
    parts: list[Any] = []
    for start, last in images:
        if last < first or start >= end:
            continue
        if first < start:
            parts.append((first, start, True))
        parts.append((max(first, start), min(last + 1, end), False))
        first = last + 1
    if first < end:
        parts.append((first, end, True))
    return parts
