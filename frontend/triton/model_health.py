# SPDX-License-Identifier: Apache-2.0
"""Detects models that lost their process, which Triton still reports as ready.

Triton 2.51 neither restarts such a process nor shows its loss in the health endpoints. A request to its model fails
after a second, one after the other; a request that was inside it is never answered. The first kind is detected by its
error, the second by probing every model while answers are overdue.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable

from common.errors import RequestError

logger = logging.getLogger(__name__)

PERIOD = 1.0  # seconds between two checks
OVERDUE = 2.0  # seconds without a first response after which the models are probed
PROBE_TIMEOUT = 5.0  # seconds; a timeout does not count as dead, as the model may be busy

# Written by Triton's Python backend, once a second for each process that is gone.
_LOST_PROCESS = re.compile(r"Stub process '([\w.-]+?)_\d+_\d+' is not healthy")


def lost_model() -> RequestError:
    """Return the error of a request that a dead model had, or would get."""
    return RequestError("The model is not available at the moment", kind="unavailable")


class ModelHealth:
    """Monitors the Triton models of one served model; `dead` holds those that lost their process, until they answer.

    probe: sends a model a small request; returns when it is answered, raises if it fails. overdue: whether a request
    has waited this many seconds for its first response. died: called with the name of a model that was found dead.
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
        """Return which of the models an error message of Triton reports as dead; None if it is about something else."""
        found = _LOST_PROCESS.search(text)
        if found is None or found[1] not in self._models:
            return None
        if found[1] not in self.dead:
            logger.error("model %s has lost its process", found[1])
            self.dead.add(found[1])
            self._died(found[1])
        return found[1]

    async def run(self) -> None:
        """Monitor the models until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            if self.dead or self._overdue(OVERDUE):
                await self.ask()

    async def ask(self) -> None:
        """Probe every model and update `dead`, unless that was done within the last period."""
        if time.monotonic() - self._asked_at < PERIOD:
            return
        self._asked_at = time.monotonic()
        await asyncio.gather(*map(self._ask, self._models))

    async def _ask(self, model: str) -> None:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await self._probe(model)
        except Exception as error:
            # A dead model was noted when its error arrived. Other failures, such as a slow answer, change nothing.
            logger.debug("asked model %s: %s", model, error)
        else:
            if model in self.dead:
                logger.warning("model %s answers again", model)
                self.dead.discard(model)

    def forget(self) -> None:
        """Forget the dead models, as Triton was started again."""
        self.dead.clear()
