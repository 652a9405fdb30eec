# SPDX-License-Identifier: Apache-2.0
"""The end of an answer of an engine that does not report it, and what such an engine cannot do."""

import pytest

from common.errors import RequestError
from common.finish_reason import FinishReason
from postprocessing.finish_reason import FinishReasonInference
from preprocessing.engine_traits import engine_traits
from preprocessing.guides.build import GUIDE_TYPES

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


def test_a_python_engine_can_do_everything() -> None:
    traits = engine_traits("vllm", guided_decoding=False)
    assert traits == engine_traits(None, guided_decoding=False) and traits.reports_finish
    for guide_type in (None, *GUIDE_TYPES):
        traits.check(guide_type, engine_images=True)


def test_the_c_backend_refuses_what_it_would_ignore() -> None:
    without, with_guides = (engine_traits("trtllm", guided_decoding=guided) for guided in (False, True))
    assert not without.reports_finish
    without.check(None, engine_images=False)
    for guide_type in GUIDE_TYPES:
        with pytest.raises(RequestError, match=f"'{guide_type}'"):
            without.check(guide_type, engine_images=False)
    with_guides.check("json_schema", engine_images=False)
    with pytest.raises(RequestError, match=r"'structural_tag'.*json_schema"):
        with_guides.check("structural_tag", engine_images=False)
    with pytest.raises(RequestError, match="no images") as refused:
        with_guides.check(None, engine_images=True)
    assert refused.value.param == "messages"
