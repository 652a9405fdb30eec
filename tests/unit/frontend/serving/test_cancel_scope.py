# SPDX-License-Identifier: Apache-2.0
"""A cancellation that comes in the very moment in which the code that it interrupts goes on."""

import asyncio

import pytest

from frontend.errors import ClientGone
from frontend.serving.cancel_scope import CancelScope


async def test_a_cancellation_that_the_code_does_not_see_is_not_lost() -> None:
    """In Python 3.11 `asyncio.wait_for` swallows one if what it waits for ends at the same time."""
    scope, connected = CancelScope(60.0), asyncio.Event()

    def both() -> None:
        connected.set()
        scope.cancel(ClientGone())

    try:
        asyncio.get_running_loop().call_later(0.05, both)
        with pytest.raises(ClientGone):
            async with scope.cancellable():
                await asyncio.wait_for(connected.wait(), 5.0)
    finally:
        scope.close()


async def test_one_that_comes_between_two_contexts_is_not_lost() -> None:
    scope = CancelScope(60.0)
    try:
        scope.cancel(ClientGone())
        with pytest.raises(ClientGone):
            async with scope.cancellable():
                pytest.fail("it went on")
    finally:
        scope.close()
