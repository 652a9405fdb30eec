# SPDX-License-Identifier: Apache-2.0
"""Cancel a request early, wherever it is: at its deadline, when its client disconnects, at a shutdown."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from common.errors import RequestError
from frontend.errors import ClientGone
from frontend.serving.generation import Generation


class CancelScope:
    """The cancellation of one request. The first error given to `cancel` counts.

    timeout: seconds until the request is cancelled with a timeout error. Create it in a running event loop and `close`
    it at the end.
    """

    def __init__(self, timeout: float) -> None:
        self._cancellable: asyncio.Timeout | None = None
        self._error: Exception | None = None
        self._generation: Generation | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._started = asyncio.get_running_loop().time()
        self._timer = self._start_timer(timeout)

    def set_timeout(self, timeout: float) -> None:
        """Change the timeout, which counts from the beginning."""
        self._timer.cancel()
        self._timer = self._start_timer(timeout)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self._timer.when() - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def cancellable(self) -> AsyncIterator[None]:
        """Let `cancel` and `abort` interrupt the code in this context, which then raises their error."""
        self._raise_unseen()
        try:
            async with asyncio.timeout(None) as self._cancellable:
                yield
        except TimeoutError:
            if self._error is None:
                raise
            raise self._error from None
        finally:
            self._cancellable = None
        self._raise_unseen()

    def cancel(self, error: Exception) -> None:
        """Cancel the request: fail its generation if one is attached, or else interrupt its code."""
        if self._error is not None:
            return
        if self._generation is None:
            self.abort(error)
        else:
            self._error = error
            self._generation.fail(error)

    def abort(self, error: Exception) -> None:
        """Interrupt the request's code, even if a generation is attached: it may be blocked in a write."""
        self._error = error
        if self._cancellable is not None:
            self._cancellable.reschedule(asyncio.get_running_loop().time())
            self._cancellable = None

    def attach(self, generation: Generation) -> None:
        """Let `cancel` fail this generation from now on: its reader can still report the error to the client."""
        self._generation = generation
        if self._error is not None:
            generation.fail(self._error)

    def cancel_on_disconnect(self, request: Request) -> None:
        """Cancel when the client closes the connection. The request's body must have been read."""
        self._watcher = asyncio.create_task(_disconnected(request))
        self._watcher.add_done_callback(self._on_disconnect)

    def close(self) -> None:
        """Stop the deadline and stop watching the connection."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.remove_done_callback(self._on_disconnect)
            self._watcher.cancel()

    def _raise_unseen(self) -> None:
        """Raise the error if the code has gone on without it; a generation raises it itself."""
        if self._error is not None and self._generation is None:
            raise self._error

    def _start_timer(self, timeout: float) -> asyncio.TimerHandle:
        late = RequestError(f"The request did not finish within {timeout:g} s", kind="timeout")
        return asyncio.get_running_loop().call_at(self._started + timeout, self.cancel, late)

    def _on_disconnect(self, watcher: "asyncio.Task[None]") -> None:
        self.cancel(ClientGone())


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
