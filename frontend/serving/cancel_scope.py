# SPDX-License-Identifier: Apache-2.0
"""What ends a request before its time, wherever it is: its deadline, its client leaving, the server going away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from common.errors import RequestError
from frontend.errors import ClientGone
from frontend.serving.generation import Generation


class CancelScope:
    """One request's. `end` raises its error inside `guard`, or, once there is a generation, fails that instead.

    Made within a running event loop; `close` must be called in the end.
    """

    def __init__(self, timeout: float) -> None:
        self._scope: asyncio.Timeout | None = None
        self._error: Exception | None = None
        self._generation: Generation | None = None
        self._watcher: asyncio.Task[None] | None = None
        late = RequestError(f"The request did not finish within {timeout:g} s", kind="timeout")
        self._timer = asyncio.get_running_loop().call_later(timeout, self.cancel, late)

    def cancel_on_disconnect(self, request: Request) -> None:
        """End when the client closes the connection. Its body must have been read."""
        self._watcher = asyncio.create_task(_disconnected(request))
        self._watcher.add_done_callback(self._on_disconnect)

    def attach(self, generation: Generation) -> None:
        """From now on the generation is what ends, so that what is told to the client is up to its reader."""
        self._generation = generation
        if self._error is not None:
            generation.fail(self._error)

    def cancel(self, error: Exception) -> None:
        """End the request; the first error counts."""
        if self._error is not None:
            return
        if self._generation is None:
            self.abort(error)
        else:
            self._error = error
            self._generation.fail(error)

    def abort(self, error: Exception) -> None:
        """Raise an error inside the guard, whatever it waits for."""
        self._error = error
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())
            self._scope = None

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """What runs inside is cancelled by `end` and `cut`, whose error is raised then."""
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._scope = None

    def close(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.remove_done_callback(self._on_disconnect)
            self._watcher.cancel()

    def _on_disconnect(self, watcher: "asyncio.Task[None]") -> None:
        self.cancel(ClientGone())


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
