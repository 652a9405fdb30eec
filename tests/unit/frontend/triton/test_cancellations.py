# SPDX-License-Identifier: Apache-2.0
"""Requests that are stopped repeatedly until they have ended."""

import asyncio
import itertools

from frontend.triton.cancellations import MIN_INTERVAL, Cancellations


async def test_late_responses_repeat_a_stop_but_not_often() -> None:
    sent: list[float] = []
    now = asyncio.get_running_loop().time
    stops = Cancellations(lambda _: sent.append(now()))
    stops.add("one")
    until = now() + 2.5 * MIN_INTERVAL
    while now() < until:
        stops.late_response("one")
        stops.late_response("never cancelled")
        await asyncio.sleep(0.01)
    # Without late responses there would be two: at the start and after one interval.
    assert len(sent) == 3
    assert all(later - earlier >= MIN_INTERVAL for earlier, later in itertools.pairwise(sent))
    stops.done("one")
    assert len(stops) == 0
