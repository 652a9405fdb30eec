# SPDX-License-Identifier: Apache-2.0
"""The event loop of an engine, on a thread of its own."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from common.periodic import PeriodicJob

# How long another thread waits for the interpreter while the loop computes. Python's default of 5 ms would limit the
# thread that sends responses to 200 of them a second.
SWITCH_INTERVAL_S = 0.0005


class EngineLoop:
    """An event loop that runs on its own thread from `start` to `stop`; the other methods may be called from any.

    log: of failures of its periodic jobs.
    """

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call the function on the loop, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def soon(self, function: Callable[[], None]) -> None:
        """Call the function in the next turn of the loop; only on its thread."""
        self._loop.call_soon(function)

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine on the loop until it ends; raises its error."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def repeat(self, period_s: float, job: Callable[[], None]) -> None:
        """Run the job on the loop, now and after each period. If it fails, that is logged."""
        attempt = PeriodicJob(job, self._log)

        def run() -> None:
            attempt()
            self._loop.call_later(period_s, run)

        self.call(run)
