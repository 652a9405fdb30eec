# SPDX-License-Identifier: Apache-2.0
"""The end of following what is served."""

import asyncio

from frontend.images import ImageFetcher
from frontend.serving.catalog import Catalog
from frontend.settings import Settings
from frontend.triton.client import TritonClient
from frontend.triton.discovery import States


class Nothing:
    """A source without models."""

    period = 60.0
    local = True

    def __init__(self) -> None:
        self.first: States = {}

    async def read(self) -> States | None:
        return None


async def test_a_connection_in_the_moment_of_closing_does_not_stop_the_end() -> None:
    """In Python 3.11 `asyncio.wait_for` swallows a cancellation if what it waits for ends at the same time."""
    settings = Settings()
    triton, images = TritonClient("127.0.0.1:1", None), ImageFetcher(settings)
    catalog = Catalog(settings, triton, images, Nothing())
    catalog.start()
    await asyncio.sleep(0.05)
    triton.connected()
    await asyncio.sleep(0)
    async with asyncio.timeout(5) as limit:
        await catalog.close()
    # `close` itself may swallow what the limit does.
    assert not limit.expired()
    await images.close()
    await triton.close(0.0)
