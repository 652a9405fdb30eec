# SPDX-License-Identifier: Apache-2.0
"""Tiles of queued requests are grouped into runs of the tower."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from vision.batches import TileQueue

COUNTS = st.lists(st.integers(1, 20), max_size=30)
BUDGETS = st.integers(1, 16)


def runs(counts: list[int], budget: int) -> list[list[tuple[int, int, int]]]:
    queue: TileQueue[tuple[int]] = TileQueue()
    for job, count in enumerate(counts):
        queue.add((job,), count)
    taken = []
    while run := queue.take(budget):
        taken.append([(*part.job, part.start, part.stop) for part in run])
    assert not queue
    return taken


@given(COUNTS, BUDGETS)
def test_every_tile_is_run_once_in_order(counts, budget):
    tiles = [(job, tile) for run in runs(counts, budget) for job, start, stop in run for tile in range(start, stop)]
    assert tiles == [(job, tile) for job, count in enumerate(counts) for tile in range(count)]


@given(COUNTS, BUDGETS)
def test_no_run_is_over_budget_and_only_large_jobs_are_cut(counts, budget):
    for run in runs(counts, budget):
        assert 0 < sum(stop - start for _, start, stop in run) <= budget
        for job, start, stop in run:
            assert (start, stop) == (0, counts[job]) or counts[job] > budget


@given(COUNTS, BUDGETS)
def test_a_run_leaves_out_only_what_does_not_fit(counts, budget):
    taken = runs(counts, budget)
    for run, following in itertools.pairwise(taken):
        size = sum(stop - start for _, start, stop in run)
        job, start, _ = following[0]
        assert size + counts[job] - start > budget


def test_a_dropped_job_is_not_run():
    queue: TileQueue[str] = TileQueue()
    queue.add("long", 5)
    queue.add("next", 1)
    assert [part.job for part in queue.take(3)] == ["long"]
    queue.drop("long")
    assert [(part.job, part.tiles) for part in queue.take(3)] == [("next", 1)]
