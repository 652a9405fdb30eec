# SPDX-License-Identifier: Apache-2.0
"""Let one request begin in each turn of the event loop.

Of many requests that arrive at once, the first goes to Triton before the last is prepared, instead of after it: what
is written to gRPC leaves the process in a later turn only. Their bodies are read and parsed before.
"""

import asyncio
from collections import deque


class Turns:
    """Turns of the event loop, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def take(self) -> None:
        """Wait for a turn; the first to come takes that which is under way."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._give_next)
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _give_next(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            # One that was cancelled needs none.
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._give_next)
                return
        self._taken = False
