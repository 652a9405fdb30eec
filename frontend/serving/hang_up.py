# SPDX-License-Identifier: Apache-2.0
"""Notice a client that closes its connection while nothing is read from it.

A server that does not read does not see the end of a connection either: it comes behind the data that waits. Linux
tells it all the same (EPOLLRDHUP), for which the socket gets an epoll instance of its own in the event loop.
"""

import asyncio
import os
import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Scope

# The extension of an ASGI scope that has the connection's asyncio.Transport as `transport`, and as `body` what writes
# parts of a streamed body at once (BodyParts).
CONNECTION = "triton_chat.connection"


@asynccontextmanager
async def until_hang_up(scope: Scope) -> AsyncIterator[None]:
    """Interrupt the code in this context with ClientDisconnect once the client closes the connection.

    A scope without the transport is not watched. One of a client that has gone raises at the first await.
    """
    extensions: dict[str, Any] = scope.get("extensions", {})
    connection = extensions.get(CONNECTION)
    sock = None if connection is None else connection["transport"].get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        yield
        return
    loop = asyncio.get_running_loop()
    # Another descriptor of the socket: the event is not lost if the transport closes its own first.
    descriptor = os.dup(sock.fileno())
    try:
        with select.epoll() as events:
            events.register(descriptor, select.EPOLLRDHUP)
            try:
                async with asyncio.timeout(None) as interrupt:
                    loop.add_reader(events.fileno(), _interrupt, loop, events.fileno(), interrupt)
                    try:
                        yield
                    finally:
                        loop.remove_reader(events.fileno())
            except TimeoutError:
                if not interrupt.expired():
                    raise
                raise ClientDisconnect from None
    finally:
        os.close(descriptor)


def _interrupt(loop: asyncio.AbstractEventLoop, events: int, interrupt: asyncio.Timeout) -> None:
    # The event stays: the loop would call this again before the context has ended.
    loop.remove_reader(events)
    interrupt.reschedule(0)
