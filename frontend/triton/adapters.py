# SPDX-License-Identifier: Apache-2.0
"""The LoRA adapters of one engine, as it last told them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

from common.adapters import Adapter
from common.errors import RequestError

logger = logging.getLogger(__name__)

PERIOD = 1.0  # seconds for which a table counts as fresh
PATIENCE = 2.0  # seconds that a request waits for a fresh table


class Adapters:
    """The adapters by their names. Whatever changes them in another process is seen after PERIOD.

    ask: asks the engine for its adapters, with parameters that change them or none. connections: counts the connections
    to Triton: after a new one the engine may be another.
    """

    def __init__(
        self, ask: Callable[[Mapping[str, str | bool]], Awaitable[Iterable[Adapter]]], connections: Callable[[], int]
    ) -> None:
        self._ask = ask
        self._connections = connections
        self._asked_at, self._connection = float("-inf"), 0
        self._asking: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._changes = 0
        self._unreadable = False
        self._sent: tuple[int, set[int]] = (0, set())
        self.table: Mapping[str, Adapter] = {}

    async def refresh(self) -> None:
        """Ask the engine unless that was done within PERIOD; the table stays if there is no answer in time."""
        if self._connection == self._connections() and time.monotonic() - self._asked_at < PERIOD:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._read())
        await asyncio.wait({self._asking}, timeout=PATIENCE)

    async def change(self, parameters: Mapping[str, str | bool]) -> None:
        """Load or unload an adapter; raises RequestError if the engine refuses it."""
        async with self._changing:
            try:
                self._use(await self._ask(parameters))
            except BaseException:
                # The engine may have made the change all the same: the next request asks.
                self._asked_at = float("-inf")
                raise
            finally:
                self._changes += 1

    def first_use(self, adapter_id: int) -> bool:
        """Return whether this is the first request with an adapter since the connection to Triton."""
        if self._sent[0] != self._connections():
            self._sent = (self._connections(), set())
        if adapter_id in self._sent[1]:
            return False
        self._sent[1].add(adapter_id)
        return True

    async def _read(self) -> None:
        connection, changes = self._connections(), self._changes
        adapters: Iterable[Adapter] | None = None
        try:
            adapters = await self._ask({})
        except RequestError as error:
            logger.debug("the adapters are not known: %s", error)
        except Exception:
            if not self._unreadable:
                logger.exception("the engine's adapters cannot be read")
            self._unreadable = True
        else:
            self._unreadable = False
        if changes != self._changes:
            # The engine may have told them before a change that is known here already.
            return
        if adapters is not None:
            self._use(adapters)
        elif connection != self._connection:
            self._use(())
        else:
            self._asked_at = time.monotonic()
        self._connection = connection

    def _use(self, adapters: Iterable[Adapter]) -> None:
        self.table = {adapter.name: adapter for adapter in adapters}
        self._asked_at = time.monotonic()
