# SPDX-License-Identifier: Apache-2.0
"""Concurrency slots and their queue, without a server."""

import asyncio

import pytest

from frontend.errors import ApiError
from frontend.serving.slots import Slots


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_request_beyond_slots_and_queue_is_refused() -> None:
    slots = Slots(1, 1, 10)
    with slots.enter(), slots.enter(), pytest.raises(ApiError, match="Too many"), slots.enter():
        pass
    with slots.enter():
        assert slots.admitted == 1
    assert slots.admitted == 0


async def test_slots_are_given_in_the_order_of_the_queue() -> None:
    slots, order = Slots(1, 9, 10), []

    async def one(name: int) -> None:
        await slots.acquire()
        order.append(name)

    await slots.acquire()
    tasks = [asyncio.create_task(one(name)) for name in range(3)]
    await settle()
    assert (slots.in_flight, slots.queued, order) == (1, 3, [])
    slots.release()
    # A new request does not overtake the queue, although a slot was just released.
    tasks.append(asyncio.create_task(one(3)))
    await settle()
    assert order == [0]
    for _ in range(3):
        slots.release()
        await settle()
    assert order == [0, 1, 2, 3]
    slots.release()
    assert (slots.in_flight, slots.queued) == (0, 0)


async def test_a_request_that_gets_no_slot_in_time_is_refused() -> None:
    slots = Slots(1, 9, 0.01)
    await slots.acquire()
    with pytest.raises(ApiError, match="busy") as refused:
        await slots.acquire()
    assert refused.value.shape.headers["Retry-After"] == "1"
    assert (slots.in_flight, slots.queued) == (1, 0)


async def test_a_cancelled_wait_leaves_the_queue() -> None:
    slots = Slots(1, 9, 10)
    await slots.acquire()
    gone, stays = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await settle()
    gone.cancel()
    await settle()
    assert slots.queued == 1
    slots.release()
    await stays
    slots.release()
    assert (slots.in_flight, slots.queued) == (0, 0)


async def test_a_slot_handed_to_a_wait_that_is_cancelled_is_not_lost() -> None:
    slots = Slots(1, 9, 10)
    await slots.acquire()
    gone, stays = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await settle()
    slots.release()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    await stays
    assert (slots.in_flight, slots.queued) == (1, 0)


async def test_a_release_and_a_cancelled_wait_at_the_same_moment() -> None:
    slots = Slots(1, 9, 10)
    await slots.acquire()
    gone, stays = asyncio.create_task(slots.acquire()), asyncio.create_task(slots.acquire())
    await settle()
    gone.cancel()
    slots.release()
    await stays
    assert (slots.in_flight, slots.queued) == (1, 0)
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert (slots.in_flight, slots.queued) == (1, 0)


async def test_more_slots_than_before_are_given_to_the_queue() -> None:
    slots = Slots(1, 9, 10)
    await slots.acquire()
    waiting = [asyncio.create_task(slots.acquire()) for _ in range(3)]
    await settle()
    slots.resize(3, 9, 10)
    await settle()
    assert (slots.in_flight, slots.queued) == (3, 1)
    slots.release()
    await asyncio.gather(*waiting)
    assert (slots.in_flight, slots.queued) == (3, 0)


async def test_fewer_slots_than_before_are_given_to_no_one_until_enough_are_free() -> None:
    slots = Slots(3, 9, 10)
    for _ in range(3):
        await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await settle()
    slots.resize(1, 9, 10)
    for _ in range(2):
        slots.release()
        await settle()
    assert (slots.in_flight, slots.queued) == (1, 1)
    slots.release()
    await waiting
    assert (slots.in_flight, slots.queued) == (1, 0)
