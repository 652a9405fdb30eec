# SPDX-License-Identifier: Apache-2.0
"""Which models cannot answer although Triton calls them ready: those that lost their process.

Triton 2.51 neither restarts such a process nor says a word of it in its health endpoints. A request at its model fails
after a second, one after the other; a request that was inside it is never answered. Both are noticed here: the first
by its error, the second by asking every model something small while answers are overdue.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable

from common.errors import RequestError

logger = logging.getLogger(__name__)

PERIOD = 1.0  # seconds between two looks
OVERDUE = 2.0  # seconds without a first response from which on the models are asked
PROBE_TIMEOUT = 5.0  # seconds; a model that is busy for longer is no dead one

# What Triton's Python backend writes, once a second and process, of a process that is gone.
_LOST_PROCESS = re.compile(r"Stub process '(\w+?)_\d+_\d+' is not healthy")


def lost_model() -> RequestError:
    """What a client is told whose request a dead model had, or would get."""
    return RequestError("The model is not available at the moment", kind="unavailable")


class ModelHealth:
    """`dead` holds the models that lost their process, until one of them answers again.

    probe: asks a model something small; returns when it answered, raises anything where it did not. overdue: whether
    a request has waited this many seconds for its first response. died: is told the name of a model found dead.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        probe: Callable[[str], Awaitable[object]],
        overdue: Callable[[float], bool],
        died: Callable[[str], None],
    ) -> None:
        self.dead: set[str] = set()
        self._models = models
        self._probe = probe
        self._overdue = overdue
        self._died = died
        self._asked_at = float("-inf")

    def note_error(self, text: str) -> str | None:
        """The model that an error message of Triton declares dead, or None where it speaks of something else."""
        found = _LOST_PROCESS.search(text)
        if found is None:
            return None
        if found[1] not in self.dead:
            logger.error("model %s has lost its process", found[1])
            self.dead.add(found[1])
            self._died(found[1])
        return found[1]

    async def run(self) -> None:
        """Look after the models until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            if self.dead or self._overdue(OVERDUE):
                await self.ask()

    async def ask(self) -> None:
        """Ask every model, unless that was done within the last period; `dead` says what came of it."""
        if time.monotonic() - self._asked_at < PERIOD:
            return
        self._asked_at = time.monotonic()
        await asyncio.gather(*map(self._ask, self._models))

    async def _ask(self, model: str) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._probe(model)
        except Exception as error:
            # What died was noted where the error came in; anything else, a slow answer too, leaves things as they were.
            logger.debug("asked model %s: %s", model, error)
        else:
            if model in self.dead:
                logger.warning("model %s answers again", model)
                self.dead.discard(model)

    def forget(self) -> None:
        """A new Triton: what was known of the old one does not count."""
        self.dead.clear()
