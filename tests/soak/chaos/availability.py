# SPDX-License-Identifier: Apache-2.0
"""Short requests that are sent all the time, and the gaps between their answers."""

import asyncio
import time
from collections.abc import Callable, Iterable

import aiohttp

from tests.soak.chaos.known_answers import ping
from tests.soak.chaos.result import ChaosResult

# A pause of answers that counts as unavailable. A busy machine alone makes shorter ones.
GAP_S = 1.0
PERIOD_S = 0.25
# Longer than a restart.
_LIMIT_S = 240.0


class Availability:
    """Notes for how long each model gave no answer, and what was done when that began.

    embedding: the model among them that makes embeddings, None if there is none.
    """

    def __init__(self, url: str, models: Iterable[str], result: ChaosResult, *, embedding: str | None = None) -> None:
        self._url, self._result, self._embedding = url, result, embedding
        # When each model last answered a request that was sent at that time.
        self._answered = dict.fromkeys(models, 0.0)

    def serves(self, since: float) -> bool:
        """Whether every model has answered what was asked after this time."""
        return min(self._answered.values()) >= since

    async def ping(self, session: aiohttp.ClientSession, done: Callable[[], bool], last: Callable[[], str]) -> None:
        """Ask every model again and again until `done`. last: what was done last to the stack."""
        await asyncio.gather(*[self._ping(session, model, done, last) for model in self._answered])

    async def _ping(
        self, session: aiohttp.ClientSession, model: str, done: Callable[[], bool], last: Callable[[], str]
    ) -> None:
        answered, cause = time.monotonic(), ""
        while not done():
            asked, before = time.monotonic(), last()
            ok = await self._answers(session, model)
            # What the gap began with, also if more was done meanwhile.
            cause = cause or (last() if time.monotonic() - asked > GAP_S else "" if ok else before)
            if ok:
                self._note(time.monotonic() - answered, cause or before)
                answered, cause = time.monotonic(), ""
                self._answered[model] = asked
            await asyncio.sleep(PERIOD_S)
        self._note(time.monotonic() - answered, cause or last())

    async def _answers(self, session: aiohttp.ClientSession, model: str) -> bool:
        path, asked = ping(model, embedding=model == self._embedding)
        try:
            async with (
                asyncio.timeout(_LIMIT_S),
                session.post(self._url + path, json=asked) as response,
            ):
                await response.read()
                return response.status == 200
        except (TimeoutError, aiohttp.ClientError, ConnectionError):
            return False

    def _note(self, gap: float, cause: str) -> None:
        if gap > GAP_S + PERIOD_S:
            self._result.gaps.setdefault(cause, []).append(gap)
