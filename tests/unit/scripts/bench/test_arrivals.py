# SPDX-License-Identifier: Apache-2.0
"""When requests are sent."""

import math
from itertools import pairwise
from statistics import mean, pstdev

import pytest

from scripts.bench.arrivals import BURST, CLOSED, STEADY, Arrivals
from scripts.bench.questions import Question, Stream

QUESTION = Question((), (1,), 1)


def test_a_closed_loop_and_a_burst_begin_at_once() -> None:
    assert Arrivals(3).offsets(0) == Arrivals(3, math.inf).offsets(0) == [0.0] * 3
    assert (Arrivals(3).kind, Arrivals(3, math.inf).kind, Arrivals(3, 2.0).kind) == (CLOSED, BURST, STEADY)
    streams = [Stream([QUESTION], [QUESTION])] * 3
    assert Arrivals(3, math.inf).timed(streams, 0) == streams


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_steady_arrivals_keep_rate_and_burstiness(burstiness: float) -> None:
    arrivals = Arrivals(20_000, 50.0, burstiness)
    offsets = arrivals.offsets(1)
    assert offsets == arrivals.offsets(1)
    assert offsets != arrivals.offsets(2)
    gaps = [later - earlier for earlier, later in pairwise(offsets)]
    assert mean(gaps) == pytest.approx(1 / 50, rel=0.1)
    # Of a gamma distribution: Poisson's deviation is its mean.
    assert pstdev(gaps) / mean(gaps) == pytest.approx(burstiness**-0.5, rel=0.1)


def test_each_request_of_steady_arrivals_has_its_time_and_few_warm_up() -> None:
    arrivals = Arrivals(40, 10.0)
    streams = arrivals.timed([Stream([QUESTION], [QUESTION])] * 40, 7)
    assert [stream.after for stream in streams] == arrivals.offsets(7)
    assert sum(len(stream.warmup) for stream in streams) == 16
    assert arrivals.about == {"arrivals": STEADY, "streams": 40, "request_rate": 10.0, "burstiness": 1.0}
