# SPDX-License-Identifier: Apache-2.0
"""Counts of tokens over the deltas of several choices."""

from frontend.triton.tensors import Delta
from frontend.triton.usage import Usage


def test_the_last_count_of_each_choice_counts() -> None:
    usage = Usage(per_prompt=2)
    assert usage.so_far(0) == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    usage.add(0, Delta(prompt_tokens=5, cached_tokens=4, completion_tokens=1, reasoning_tokens=1))
    usage.add(1, Delta(prompt_tokens=5, cached_tokens=5, completion_tokens=2, reasoning_tokens=0))
    usage.add(0, Delta(text="no count"))
    usage.add(0, Delta(completion_tokens=4, reasoning_tokens=2))
    assert usage.so_far(0) == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    assert usage.so_far(1) == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    assert usage.so_far(1, begun=False) == {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5}
    assert usage.body() == {
        "prompt_tokens": 5,
        "completion_tokens": 6,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_choices_that_were_cut_off_count_what_had_come() -> None:
    usage = Usage(per_prompt=3)
    usage.add(0, Delta(completion_tokens=4, finish_reason="stop"))
    usage.add(1, Delta(completion_tokens=2))
    usage.add_unfinished({0: 6, 1: 5, 2: 1})
    assert [usage.so_far(choice)["completion_tokens"] for choice in range(3)] == [4, 5, 1]
