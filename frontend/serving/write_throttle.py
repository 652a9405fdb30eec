# SPDX-License-Identifier: Apache-2.0
"""Limit how often each stream writes, so that all streams of a process together stay within its CPU time.

The cost of a chunk hardly depends on the number of its tokens: most of it is the socket write. With few streams, or
streams slower than their share, there is no wait. Beyond that each chunk holds the tokens that came during the wait.
"""

import asyncio

CHUNK_COST = 5e-5  # seconds of one core for one chunk, measured from the row of a batch to the socket's write
NOTICEABLE = 2e-3  # seconds; shorter waits cost more in timers than they save


class WriteThrottle:
    """Gives each open stream an equal share of the chunks that the process can write. Enter it once for each stream."""

    def __init__(self) -> None:
        self._streams = 0

    def __enter__(self) -> "WriteThrottle":
        self._streams += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._streams -= 1

    async def wait(self) -> None:
        """Wait after a write until the stream may write again; with few streams return at once."""
        share = self._streams * CHUNK_COST
        if share >= NOTICEABLE:
            await asyncio.sleep(share)
