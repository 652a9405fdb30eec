# SPDX-License-Identifier: Apache-2.0
"""The engine's statistics, for those who choose among servers by their load and ask for them many times a second."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from common.errors import RequestError

logger = logging.getLogger(__name__)

MAX_AGE = 0.2  # seconds that an answer is good for: llm-d's endpoint picker asks 20 times a second
PATIENCE = 0.5  # seconds that the engine has for its answer


class EngineStatistics:
    """Asks the engine at most once in MAX_AGE; those who come meanwhile share the question and its answer.

    ask: asks the engine.
    """

    def __init__(self, ask: Callable[[], Awaitable[Mapping[str, Any]]]) -> None:
        self._ask = ask
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[Mapping[str, Any]] | None = None

    async def get(self) -> Mapping[str, Any]:
        """Return the statistics by the names of `common.engine_statistics`; empty if the engine tells nothing."""
        now = time.monotonic()
        if self._asking is None or (self._asking.done() and now - self._asked_at >= MAX_AGE):
            self._asked_at, self._asking = now, asyncio.create_task(self._answer())
        return await asyncio.shield(self._asking)

    async def _answer(self) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask()
        except (TimeoutError, RequestError) as error:
            logger.debug("the engine's statistics are not known: %s", error)
            return {}
