# SPDX-License-Identifier: Apache-2.0
"""End the process of the model `tensorrt_llm` when its engine has died."""

import asyncio
import logging
import os
from typing import Protocol

PERIOD_S = 0.5
# For the errors of the requests that were running to be sent.
FLUSH_S = 1.0
# EX_SOFTWARE of sysexits.h.
EXIT_STATUS = 70

log = logging.getLogger("tensorrt_llm")


class SupportsErrored(Protocol):
    """An engine that reports whether it can still serve."""

    @property
    def errored(self) -> bool:
        """Whether its processes have died."""


async def exit_when_dead(engine: SupportsErrored) -> None:
    """Check the engine until it has died, then end this process: Triton would go on reporting the model as ready.

    The launcher, or else the watchdog, then restarts tritonserver.
    """
    while not engine.errored:
        await asyncio.sleep(PERIOD_S)
    log.error("the engine has died; ending this model's process")
    await asyncio.sleep(FLUSH_S)
    os._exit(EXIT_STATUS)
