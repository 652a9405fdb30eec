# SPDX-License-Identifier: Apache-2.0
"""How often a stream may write, so that all streams of a process together write no more than it can.

A chunk costs the process about the same however many tokens it holds: the socket write is most of it. With few streams
nobody waits, and streams slower than their share do not notice; beyond that a chunk holds the tokens of a pause.
"""

import asyncio

CHUNK_COST = 1e-4  # seconds of one core for one chunk, measured from gRPC read to socket write
NOTICEABLE = 2e-3  # seconds; shorter pauses cost more in timers than they save


class WriteThrottle:
    """Counts the streams of a process; each gets an equal share of the chunks it can write."""

    def __init__(self) -> None:
        self._streams = 0

    def __enter__(self) -> "WriteThrottle":
        self._streams += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._streams -= 1

    async def wait(self) -> None:
        """Wait, after a write, until the stream's next turn: with few streams not at all."""
        share = self._streams * CHUNK_COST
        if share >= NOTICEABLE:
            await asyncio.sleep(share)
