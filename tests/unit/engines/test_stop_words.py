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
