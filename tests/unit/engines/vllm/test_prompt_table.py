# SPDX-License-Identifier: Apache-2.0
"""Rows of a prompt embedding table as vLLM's multimodal input: places, keys, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from common.errors import RequestError
from engines.vllm.prompt_table import ITEM_ROWS, MODALITY, blank_prompt, table_prompt

VOCAB, HIDDEN = 100, 4
TABLE = torch.arange(5 * HIDDEN, dtype=torch.bfloat16).view(5, HIDDEN)


def build(ids: list[int], table: torch.Tensor = TABLE, extra_ids: list[int] | None = None) -> Any:
    return table_prompt(ids, table, extra_ids, VOCAB, HIDDEN)


def places(prompt: Any) -> list[tuple[int, int]]:
    return [(place.offset, place.length) for place in prompt["mm_placeholders"][MODALITY]]


def keys(prompt: Any) -> list[str]:
    return list(prompt["mm_hashes"][MODALITY])


def rows(prompt: Any) -> list[torch.Tensor]:
    return [item["rows"].data for item in prompt["mm_kwargs"][MODALITY]]


def test_runs_of_rows_are_items_that_share_the_tables_memory():
    # A token just below the vocabulary size before row 0, an image of rows 0 and 1, one of 2 and 3, and row 4 again.
    built = build([99, 100, 101, 102, 103, 7, 104], extra_ids=[0, 8, 8, 2**64 - 1, 2**64 - 1, 0, 9])
    assert built["type"] == "multimodal"
    assert built["prompt_token_ids"] == [99, 99, 99, 99, 99, 7, 99], "ids that vLLM knows, in place of rows"
    assert places(built) == [(1, 2), (3, 2), (6, 1)]
    assert keys(built) == ["0000000000000008.0.2", "ffffffffffffffff.0.2", "0000000000000009.0.1"]
    assert [item.tolist() for item in rows(built)] == [TABLE[0:2].tolist(), TABLE[2:4].tolist(), TABLE[4:].tolist()]
    assert [item.data_ptr() for item in rows(built)] == [TABLE[row].data_ptr() for row in (0, 2, 4)], "no copies"


def test_rows_in_any_order_are_found():
    built = build([102, 100, 101, 101, 1])
    assert places(built) == [(0, 1), (1, 2), (3, 1)]
    assert torch.cat(rows(built)).tolist() == TABLE[[2, 0, 1, 1]].tolist()


def test_an_item_is_no_longer_than_vllm_was_told():
    length = 2 * ITEM_ROWS + 3
    built = build([5, *range(VOCAB, VOCAB + length)], torch.zeros(length, HIDDEN), [0, *[6] * length])
    assert places(built) == [(1, ITEM_ROWS), (1 + ITEM_ROWS, ITEM_ROWS), (1 + 2 * ITEM_ROWS, 3)]
    assert len(set(keys(built))) == 3, "the parts of an image are not taken for each other"
    config: Any = SimpleNamespace(get_hidden_size=lambda: HIDDEN)
    assert places(blank_prompt(config)) == [(0, ITEM_ROWS)]


def test_without_hashes_the_rows_are_the_key():
    first, same, other = (keys(build([1, 100, 101], table)) for table in (TABLE, TABLE.clone(), TABLE + 1))
    assert first == same != other
    assert keys(build([1, 100, 101], TABLE, [0, 0, 0])) == first


def test_a_table_that_no_id_refers_to_is_left_out():
    for table in (TABLE, TABLE[:0]):
        assert build([1, 2], table) == {"type": "token", "prompt_token_ids": [1, 2]}


@pytest.mark.parametrize(
    ("ids", "table", "message"),
    [
        ([1, 105], TABLE, "prompt id 105 is past the table's 5 rows"),
        ([100], TABLE[:0], "past the table's 0 rows"),
        ([100], TABLE[:, :3], "have 3 values, not 4"),
    ],
)
def test_wrong_tables_are_refused(ids: list[int], table: torch.Tensor, message: str):
    with pytest.raises(RequestError, match=message) as refused:
        build(ids, table)
    assert (refused.value.kind, refused.value.param) == ("invalid_request", "prompt_embedding_table")


def test_the_key_of_an_image_does_not_depend_on_the_images_before_it():
    """Keys are shared by requests: equal ones must stand for equal rows, also of images that take several items."""
    made = torch.Generator().manual_seed(1)
    large = torch.randn(3 * ITEM_ROWS + 7, HIDDEN, generator=made).bfloat16()
    small = torch.randn(ITEM_ROWS, HIDDEN, generator=made).bfloat16()
    medium = torch.randn(ITEM_ROWS // 2, HIDDEN, generator=made).bfloat16()
    images = {7: large, 8: small, 9: medium}

    def rows_by_key(*chosen: int) -> list[tuple[str, torch.Tensor]]:
        ids, hashes, row = [1], [0], VOCAB
        for image in chosen:
            count = len(images[image])
            ids += [*range(row, row + count), 2]
            hashes += [*[image] * count, 0]
            row += count
        built = build(ids, torch.cat([images[image] for image in chosen]), hashes)
        return list(zip(keys(built), rows(built), strict=True))

    alone, behind = rows_by_key(7), rows_by_key(8, 7)
    known: dict[str, torch.Tensor] = {}
    for key, found in (*alone, *behind, *rows_by_key(7, 8, 7), *rows_by_key(7, 9, 7), *rows_by_key(7, 7)):
        assert torch.equal(known.setdefault(key, found), found), key
    assert {key for key, _ in alone} <= {key for key, _ in behind}
