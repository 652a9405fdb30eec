# SPDX-License-Identifier: Apache-2.0
"""Attention in parts: bidirectional within an image, causal elsewhere."""

import numpy as np
import pytest
import torch
from vllm.v1.attention.backend import CommonAttentionMetadata

from engines.vllm.cpu_worker import in_parts, row_parts

PER_IMAGE = 4
OFFSETS = [2, 7]


@pytest.mark.parametrize(
    ("first", "end"), [(0, 12), (0, 2), (0, 6), (2, 6), (4, 6), (4, 12), (6, 7), (6, 11), (11, 12)]
)
def test_parts_attend_to_what_the_tokens_of_a_chunk_may_see(first, end):
    images = [(offset, offset + PER_IMAGE - 1) for offset in OFFSETS]
    queries, keys = np.arange(first, end)[:, None], np.arange(end)[None]
    expected = keys <= queries
    for start, last in images:
        expected |= (queries >= start) & (queries <= last) & (keys >= start) & (keys <= last)
    seen = np.zeros_like(expected)
    covered = []
    for start, stop, causal in row_parts(first, end, images):
        covered += range(start, stop)
        for query in range(start, stop):
            seen[query - first, : query + 1 if causal else stop] = True
    assert covered == list(range(first, end))
    np.testing.assert_array_equal(seen, expected)


def step_of(starts: list[int], ends: list[int], images: dict) -> CommonAttentionMetadata:
    return CommonAttentionMetadata(
        query_start_loc=torch.tensor(starts),
        query_start_loc_cpu=torch.tensor(starts),
        seq_lens=torch.tensor(ends),
        num_reqs=2,
        num_actual_tokens=starts[-1],
        max_query_len=starts[-1],
        max_seq_len=max(ends),
        block_table_tensor=torch.tensor([[1, 2], [3, 4]]),
        slot_mapping=torch.arange(starts[-1]),
        mm_req_doc_ranges=images,
    )


def test_a_step_is_split_into_parts():
    images = [(offset, offset + PER_IMAGE - 1) for offset in OFFSETS]
    # A decoding request of 20 tokens, then a prefill of tokens 2 to 12 whose first two are computed.
    step = step_of([0, 1, 11], [20, 12], {0: images, 1: images})
    parts = in_parts(step)
    assert parts.num_reqs == 5
    assert parts.query_start_loc.tolist() == [0, 1, 5, 6, 10, 11]
    assert parts.seq_lens.tolist() == [20, 6, 7, 11, 12]
    assert parts.causal.bool().tolist() == [True, False, True, False, True]
    assert parts.block_table_tensor.tolist() == [[1, 2], *[[3, 4]] * 4]
    assert parts.max_query_len == 4
    decoding = step_of([0, 1, 2], [20, 13], {0: [], 1: images})
    assert in_parts(decoding) is decoding
