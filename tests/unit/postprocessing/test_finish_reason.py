# SPDX-License-Identifier: Apache-2.0
"""The end of an answer of an engine that does not report it."""

import pytest

from common.finish_reason import FinishReason
from postprocessing.finish_reason import FinishReasonInference

END = 9
LATER = 1_000_000


@pytest.mark.parametrize(
    ("limit", "responses", "reason"),
    [
        (5, [([1], 0), ([2, END], LATER)], FinishReason.END_ID),
        (5, [([1], 0), ([2], 0), ([], LATER)], FinishReason.STOP_WORDS),
        (5, [([1], 0), ([2], LATER)], FinishReason.STOP_WORDS),
        (2, [([1], 0), ([2], LATER)], FinishReason.LENGTH),
        (2, [([1, 2], LATER)], FinishReason.LENGTH),
        (2, [([1, END], LATER)], FinishReason.END_ID),
        (None, [([1, 2], LATER)], FinishReason.STOP_WORDS),
        (9, [([END], 0), ([2], 0), ([3, END], LATER)], FinishReason.END_ID),
        (5, [([1], 0), ([], 0)], FinishReason.CANCELLED),
        (5, [([], LATER)], FinishReason.STOP_WORDS),
        (2, [([1], None), ([2], None)], FinishReason.LENGTH),
        (5, [([1], None), ([END], None)], FinishReason.END_ID),
        (5, [([1], None), ([], None)], FinishReason.STOP_WORDS),
    ],
    ids=[
        "end id sent",
        "end id kept",
        "stop words",
        "limit",
        "limit at once",
        "end id at the limit",
        "unknown limit",
        "an end id in the middle",
        "cancelled",
        "nothing but an end",
        "limit without timing",
        "end id without timing",
        "end id kept without timing",
    ],
)
def test_the_last_response_and_none_before_it_ends_the_answer(limit, responses, reason) -> None:
    inference = FinishReasonInference(limit, {END})
    assert [inference.feed(ids, time) for ids, time in responses] == [None] * (len(responses) - 1) + [reason]


def test_an_ignored_end_id_ends_nothing() -> None:
    inference = FinishReasonInference(3, frozenset())
    assert [inference.feed(ids, time) for ids, time in [([END], 0), ([END], 0), ([END], LATER)]] == [
        None,
        None,
        FinishReason.LENGTH,
    ]
