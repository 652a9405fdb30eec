# SPDX-License-Identifier: Apache-2.0
"""What becomes of this process when its engine is beyond repair."""

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


class MayDie(Protocol):
    """An engine that says whether it can still serve."""

    @property
    def errored(self) -> bool:
        """Whether its processes have died."""


async def end_with(engine: MayDie) -> None:
    """End this process once the engine is dead: Triton would go on calling the model ready.

    Whoever watches this process (the launcher, else the guardian) starts tritonserver anew with an engine that lives.
    """
    while not engine.errored:
        await asyncio.sleep(PERIOD_S)
    log.error("the engine has died; ending this model's process")
    await asyncio.sleep(FLUSH_S)
    os._exit(EXIT_STATUS)
