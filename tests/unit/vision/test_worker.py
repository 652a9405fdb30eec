# SPDX-License-Identifier: Apache-2.0
"""The worker thread gives each job its own rows, also when a run fails."""

import threading

import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import RequestError
from vision.worker import Job, TileWorker


class NumberTower:
    """A fake runtime: both tokens of a tile have the value of its first byte. A run with the byte `bad` fails.

    Runs wait for `gate`, so that a test controls what is queued when a run ends.
    """

    max_tiles = 6

    def __init__(self, bad: int = -1) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.sizes: list[int] = []
        self._bad = bad

    def run(self, tiles: torch.Tensor) -> torch.Tensor:
        self.entered.set()
        assert self.gate.wait(10)
        self.sizes.append(len(tiles))
        first = tiles[:, 0, 0, 0]
        if (first.int() == self._bad).any():
            raise RuntimeError("no such tower")
        return first.float()[:, None, None].expand(-1, 2, 3)


class Answers:
    """Collects the result of each job; `wait` returns when all have one."""

    def __init__(self, count: int) -> None:
        self.got: dict[int, list[object]] = {job: [] for job in range(count)}
        self._left = threading.Semaphore(0)
        self._count = count

    def job(self, number: int, tiles: torch.Tensor):
        def record(answer: object) -> None:
            self.got[number].append(answer)
            self._left.release()

        return Job(tiles, record, record)

    def wait(self) -> None:
        for _ in range(self._count):
            assert self._left.acquire(timeout=10)


def tiles_of(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 2, 2, 3)


def serve(runtime: NumberTower, jobs: list[list[int]], budget: int = 32) -> Answers:
    """Queue every job while the first is running."""
    answers, worker = Answers(len(jobs)), TileWorker(runtime, budget)
    for number, values in enumerate(jobs):
        worker.submit(answers.job(number, tiles_of(values)))
        assert runtime.entered.wait(10)
    runtime.gate.set()
    answers.wait()
    worker.close()
    return answers


def rows(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.bfloat16).repeat_interleave(2)[:, None].expand(-1, 3)


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=15), min_size=1, max_size=8), st.integers(1, 9))
def test_every_job_gets_its_own_rows(jobs, budget):
    runtime = NumberTower()
    answers = serve(runtime, jobs, budget)
    assert max(runtime.sizes) <= min(budget, runtime.max_tiles)
    for number, values in enumerate(jobs):
        (table,) = answers.got[number]
        assert table.dtype == torch.bfloat16 and torch.equal(table, rows(values))


def test_what_waits_during_a_run_makes_up_the_next():
    runtime = NumberTower()
    serve(runtime, [[1], [2, 2], [3], [4, 4, 4, 4]])
    assert runtime.sizes == [1, 3, 4]


def test_a_failing_run_fails_only_its_requests():
    runtime = NumberTower(bad=9)
    answers = serve(runtime, [[1], [2], [9], [3, 3, 3, 3, 3], [4, 4, 4, 4, 4, 4, 9, 4], [5]])
    (first,) = answers.got[0]
    assert torch.equal(first, rows([1]))
    for number in (1, 2):
        (error,) = answers.got[number]
        assert isinstance(error, RequestError) and error.kind == "internal"
    assert torch.equal(answers.got[3][0], rows([3] * 5))
    (error,) = answers.got[4]
    assert isinstance(error, RequestError), "the second run of this job held a bad tile"
    # The rest of job 4 ran together with job 5.
    assert [type(answer) for answer in answers.got[5]] == [RequestError]
    assert runtime.sizes == [1, 2, 5, 6, 3]


def test_the_rest_of_a_failed_job_is_not_run():
    runtime = NumberTower(bad=9)
    answers = serve(runtime, [[9] * 20, [1]])
    assert runtime.sizes == [6, 1]
    assert torch.equal(answers.got[1][0], rows([1]))
    assert len(answers.got[0]) == 1


def test_closing_answers_what_is_queued():
    runtime = NumberTower()
    runtime.gate.set()
    answers, worker = Answers(5), TileWorker(runtime, 32)
    for number in range(5):
        worker.submit(answers.job(number, tiles_of([number])))
    worker.close()
    assert all(len(got) == 1 for got in answers.got.values())


def test_a_result_that_cannot_be_sent_fails_its_job_only() -> None:
    tower, answers = NumberTower(), Answers(2)
    tower.gate.set()

    def unsendable(_: object) -> None:
        raise RuntimeError("no such request")

    worker = TileWorker(tower, tile_budget=6)
    bad = answers.job(0, tiles_of([1]))
    bad.done = unsendable
    worker.submit(bad)
    worker.submit(answers.job(1, tiles_of([2])))
    answers.wait()
    worker.close()
    (error,), (rows,) = answers.got.values()
    assert isinstance(error, RequestError) and error.kind == "internal"
    assert isinstance(rows, torch.Tensor) and rows.shape == (2, 3)
