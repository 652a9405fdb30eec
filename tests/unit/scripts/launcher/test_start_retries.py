# SPDX-License-Identifier: Apache-2.0
"""What shows that Triton gave up a model's process, and how often a start is tried again."""

import signal

import pytest

from scripts.launcher.start_retries import PAUSES_S, StartRetries, gave_up, stall

UNHEALTHY = "E1121 x.cc:641] \"failed to load 'vit' version 1: Internal: Stub process 'vit_0_0' is not healthy.\""
ABORT = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'"
MUTEX = "failed to load 'vit' version 1: Internal: Failed to obtain the health mutex."


@pytest.mark.parametrize("line", [UNHEALTHY, ABORT, MUTEX])
def test_what_triton_says_of_a_process_that_it_gave_up(line: str) -> None:
    assert gave_up(line)
    what = stall(["I1121 something else", line], 1)
    assert what is not None and "for dead while it loaded" in what
    assert ("model vit" in what) == (line is UNHEALTHY)


def test_a_crash_without_a_word_counts_too() -> None:
    assert stall([], -signal.SIGABRT) == stall([], -signal.SIGSEGV) == "crashed while it loaded"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([], None),
        ([], 1),
        ([], -signal.SIGKILL),
        (["failed to load 'vit' version 1: Internal: ValueError: no"], 1),
        (["MemoryError", UNHEALTHY], 1),
        (["ModuleNotFoundError: No module named 'vllm'", UNHEALTHY], 1),
    ],
)
def test_what_the_next_start_would_not_change(lines: list[str], status: int | None) -> None:
    assert stall(lines, status) is None


def test_pauses_grow_and_end() -> None:
    retries = StartRetries()
    seen = []
    while (pause := retries.next_pause()) is not None:
        seen.append((pause, retries.tried))
    assert [pause for pause, _ in seen] == list(PAUSES_S) == sorted(PAUSES_S)
    assert [tried for _, tried in seen] == ["2 of 4", "3 of 4", "4 of 4"]
