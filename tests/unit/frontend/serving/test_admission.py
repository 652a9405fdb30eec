# SPDX-License-Identifier: Apache-2.0
"""The bounds on requests inside, at work and waiting, without a server."""

import asyncio

import pytest

from frontend.errors import ApiError
from frontend.serving.admission import Admission


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_no_more_come_in_than_have_a_place_or_may_wait() -> None:
    admission = Admission(1, 1, 10)
    with admission.enter(), admission.enter(), pytest.raises(ApiError, match="Too many"), admission.enter():
        pass
    with admission.enter():
        assert admission.inside == 1
    assert admission.inside == 0


def test_nobody_comes_in_while_draining() -> None:
    admission = Admission(1, 1, 10)
    admission.draining = True
    with pytest.raises(ApiError, match="shutting down"), admission.enter():
        pass


async def test_places_go_to_those_who_wait_in_their_order() -> None:
    admission, order = Admission(1, 9, 10), []

    async def one(name: int) -> None:
        await admission.acquire()
        order.append(name)

    await admission.acquire()
    tasks = [asyncio.create_task(one(name)) for name in range(3)]
    await settle()
    assert (admission.in_flight, admission.queued, order) == (1, 3, [])
    admission.release()
    # Whoever comes now does not overtake those who wait, though a place was just given back.
    tasks.append(asyncio.create_task(one(3)))
    await settle()
    assert order == [0]
    for _ in range(3):
        admission.release()
        await settle()
    assert order == [0, 1, 2, 3]
    admission.release()
    assert (admission.in_flight, admission.queued) == (0, 0)


async def test_who_gets_no_place_in_time_is_refused() -> None:
    admission = Admission(1, 9, 0.01)
    await admission.acquire()
    with pytest.raises(ApiError, match="busy") as refused:
        await admission.acquire()
    assert refused.value.shape.headers["Retry-After"] == "1"
    assert (admission.in_flight, admission.queued) == (1, 0)


async def test_who_stops_waiting_leaves_nothing_behind() -> None:
    admission = Admission(1, 9, 10)
    await admission.acquire()
    gone, stays = asyncio.create_task(admission.acquire()), asyncio.create_task(admission.acquire())
    await settle()
    gone.cancel()
    await settle()
    assert admission.queued == 1
    admission.release()
    await stays
    admission.release()
    assert (admission.in_flight, admission.queued) == (0, 0)


async def test_a_place_given_to_who_stops_waiting_in_that_moment_is_not_lost() -> None:
    admission = Admission(1, 9, 10)
    await admission.acquire()
    gone, stays = asyncio.create_task(admission.acquire()), asyncio.create_task(admission.acquire())
    await settle()
    admission.release()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await stays
    assert (admission.in_flight, admission.queued) == (1, 0)


async def test_who_works_and_who_waits_may_end_in_the_same_moment() -> None:
    admission = Admission(1, 9, 10)
    await admission.acquire()
    gone, stays = asyncio.create_task(admission.acquire()), asyncio.create_task(admission.acquire())
    await settle()
    gone.cancel()
    admission.release()
    await stays
    assert (admission.in_flight, admission.queued) == (1, 0)
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (admission.in_flight, admission.queued) == (1, 0)
