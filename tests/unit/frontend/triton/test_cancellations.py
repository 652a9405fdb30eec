# SPDX-License-Identifier: Apache-2.0
"""Requests that are stopped repeatedly until they have ended."""

import asyncio
import itertools

from frontend.triton.cancellations import MIN_INTERVAL, Cancellations


async def test_late_responses_repeat_a_stop_but_not_often() -> None:
    sent: list[float] = []
    now = asyncio.get_running_loop().time
    stops = Cancellations(lambda *_: sent.append(now()))
    stops.add("one", lambda: ["tensorrt_llm"])
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


async def test_a_model_that_is_reloaded_is_stopped_in_both_engines() -> None:
    """The request may have begun on either."""
    sent: list[tuple[str, str]] = []
    engines = ["qwen3.tensorrt_llm"]
    stops = Cancellations(lambda *stop: sent.append(stop))
    stops.add("one", lambda: engines)
    engines.append("qwen3.g2.tensorrt_llm")
    await asyncio.sleep(1.5 * MIN_INTERVAL)
    stops.clear()
    assert sent == [("one", engine) for engine in ("qwen3.tensorrt_llm", *engines)]
