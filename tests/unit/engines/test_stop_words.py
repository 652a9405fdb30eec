# SPDX-License-Identifier: Apache-2.0
"""Stop words of several ids."""

import pytest

from engines.stop_words import StopWordsMatcher


@pytest.mark.parametrize(
    ("words", "pieces", "matched"),
    [
        ([[1, 2]], [[1], [2]], [None, 1]),
        ([[1, 2]], [[5, 1, 2, 9]], [3]),
        ([[1, 1, 2]], [[1], [1], [1], [2]], [None, None, None, 1]),
        ([[7]], [[7]], [None]),  # single ids are left to the engine
        ([[1, 2], [3, 4, 5]], [[3, 4], [1, 2]], [None, 2]),
        ([], [[1, 2, 3]], [None]),
    ],
)
def test_stop_words_of_several_ids(words: list[list[int]], pieces: list[list[int]], matched: list[int | None]) -> None:
    matcher = StopWordsMatcher(words)
    assert [matcher.feed(piece) for piece in pieces] == matched


@pytest.mark.parametrize("sizes", [(1,) * 6, (6,), (2, 4), (3, 3)])
@pytest.mark.parametrize(("min_tokens", "end"), [(0, 2), (1, 2), (2, 4), (3, 4), (4, 6), (5, 6), (6, None)])
def test_they_wait_for_min_tokens(sizes: tuple[int, ...], min_tokens: int, end: int | None) -> None:
    matcher, ids, read = StopWordsMatcher([[1, 2]], min_tokens), [1, 2] * 3, 0
    for size in sizes:
        matched = matcher.feed(ids[read : read + size])
        if matched is not None:
            assert read + matched == end
            return
        read += size
    assert end is None
