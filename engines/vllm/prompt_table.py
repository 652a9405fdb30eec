# SPDX-License-Identifier: Apache-2.0
"""Build vLLM's multimodal input from a prompt's rows of an embedding table."""

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm.config import ModelConfig
from vllm.inputs.engine import mm_input, tokens_input
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems, PlaceholderRange

from common.errors import RequestError

MODALITY = "image"
# The most rows that vLLM handles as one: a step takes whole items, and its cache of items holds at least one.
ITEM_ROWS = 1024


def table_prompt(
    prompt_ids: list[int], table: torch.Tensor, extra_ids: list[int] | None, vocab_size: int, hidden_size: int
) -> Any:
    """Build the input of a prompt whose ids at or above the vocabulary size are rows of `table` [rows, hidden size].

    extra_ids: one per id; the hash of a row's image, or 0 if it has none. Raises RequestError if a row or its size is
    wrong.
    """
    ids = np.asarray(prompt_ids)
    if int(ids.max()) >= vocab_size + len(table):
        raise RequestError(
            f"prompt id {ids.max()} is past the table's {len(table)} rows", param="prompt_embedding_table"
        )
    if len(table) and table.shape[1] != hidden_size:
        raise RequestError(
            f"rows of the prompt's table have {table.shape[1]} values, not {hidden_size}",
            param="prompt_embedding_table",
        )
    hashes = np.zeros(len(ids), np.uint64) if extra_ids is None else np.asarray(extra_ids, np.uint64)
    items, keys, places = [], [], []
    # hash of an image -> its first row in the table, and the row after the last one seen.
    images: dict[int, tuple[int, int]] = {}
    for start, end in _runs(ids, hashes, vocab_size):
        row, image = prompt_ids[start] - vocab_size, int(hashes[start])
        # Where the table has an image must not be part of its key: that differs between requests.
        first, following = images.get(image, (row, row))
        first = first if following == row else row
        images[image] = first, row + end - start
        items.append(table[row : row + end - start])
        keys.append(_key(items[-1], row - first, image))
        places.append(PlaceholderRange(start, end - start))
    if not items:
        return tokens_input(prompt_ids)
    # What stands at the positions of rows is not read, but counts for penalties: the last id is usually padding.
    return _input(np.minimum(ids, vocab_size - 1).tolist(), items, keys, places)


def blank_prompt(config: ModelConfig) -> Any:
    """Build a prompt of one item of zeros, by which vLLM sizes its caches."""
    rows = torch.zeros(ITEM_ROWS, config.get_hidden_size(), dtype=torch.bfloat16)
    return _input([0] * ITEM_ROWS, [rows], ["blank"], [PlaceholderRange(0, ITEM_ROWS)])


def _runs(ids: NDArray[Any], hashes: NDArray[Any], vocab_size: int) -> list[tuple[int, int]]:
    """(start, end) of each run of successive rows of one image, of at most ITEM_ROWS."""
    is_row = ids >= vocab_size
    cuts = (np.diff(ids) != 1) | (np.diff(is_row)) | (hashes[1:] != hashes[:-1])
    starts = [0, *(np.flatnonzero(cuts) + 1).tolist()]
    return [
        (first, min(first + ITEM_ROWS, end))
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)
        if is_row[start]
        for first in range(start, end, ITEM_ROWS)
    ]


def _key(rows: torch.Tensor, row: int, image: int) -> str:
    """The key in vLLM's caches: the image's hash with its first row and their number, or else a hash of the rows."""
    if image:
        return f"{image:016x}.{row}.{len(rows)}"
    return hashlib.blake2b(rows.contiguous().view(torch.uint8).numpy().data, digest_size=16).hexdigest()


def _input(prompt_ids: list[int], items: list[torch.Tensor], keys: list[str], places: list[PlaceholderRange]) -> Any:
    fields = {"rows": MultiModalFieldConfig.batched(MODALITY)}
    kwargs = MultiModalKwargsItems.from_hf_inputs({"rows": items}, fields)  # type: ignore[arg-type] # any mapping does
    return mm_input(prompt_ids, kwargs, {MODALITY: keys}, {MODALITY: places})
