# SPDX-License-Identifier: Apache-2.0
"""Stop words of several ids."""

from typing import Any

import pytest

from common.finish_reason import FinishReason
from engines.engine import Generation, Tokens
from engines.stop_words import StopWordsMatcher, let_stop


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


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7])
def test_tokens_of_a_generation_without_streaming_come_at_once(count: int) -> None:
    taken: list[Tokens] = []
    generation, put = let_stop(Generation([1], 8, stop_words=[[1, 2]], streaming=False), taken.append)
    assert generation.streaming
    for number in range(count):
        first, last = number == 0, number == count - 1
        put(
            Tokens(
                [number], [-float(number)], cached_tokens=3 if first else None, finish=FinishReason(2) if last else None
            )
        )
        assert bool(taken) == last
    (all_of_them,) = taken
    assert (all_of_them.ids, all_of_them.cached_tokens) == (list(range(count)), 3)
    assert all_of_them.logprobs == [-float(number) for number in range(count)]


@pytest.mark.parametrize(
    "more", [{"streaming": True, "stop_words": [[1, 2]]}, {"streaming": False, "stop_words": [[1]]}]
)
def test_other_generations_stay_as_they_are(more: dict[str, Any]) -> None:
    given, put = Generation([1], 8, **more), print
    assert let_stop(given, put) == (given, put)
