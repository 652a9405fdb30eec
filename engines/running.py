# SPDX-License-Identifier: Apache-2.0
"""The generations that are running, by request id."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from functools import partial

from engines.outbox import Outgoing


class RunningGenerations:
    """One task per generation. Used on the event loop of the tasks only.

    cancelled_early: called for a generation that was cancelled before its task took its first step, and which
    therefore could send nothing itself.
    changed: called after each start and end.
    """

    def __init__(self, cancelled_early: Callable[[Outgoing], None], changed: Callable[[], object]) -> None:
        self._cancelled_early, self._changed = cancelled_early, changed
        self._tasks: dict[str, dict[asyncio.Task[None], Outgoing]] = defaultdict(dict)

    def __len__(self) -> int:
        return sum(map(len, self._tasks.values()))

    def __iter__(self) -> Iterator[tuple[asyncio.Task[None], Outgoing]]:
        """All tasks, as they are at this moment."""
        return iter([entry for tasks in self._tasks.values() for entry in tasks.items()])

    def start(self, request_id: str, outgoing: Outgoing, run: Coroutine[None, None, None]) -> None:
        """Run a generation as a task, which is removed when it ends."""
        task = asyncio.get_running_loop().create_task(run)
        self._tasks[request_id][task] = outgoing
        task.add_done_callback(partial(self._remove, request_id))
        self._changed()

    def cancel(self, request_id: str, stream_id: int | str | None) -> bool:
        """Cancel the generations of a request, or only the one with this stream id; returns whether it runs here."""
        tasks = self._tasks.get(request_id, {})
        for task, outgoing in list(tasks.items()):
            if stream_id is None or str(outgoing.outputs.stream_id) == str(stream_id):
                task.cancel()
        return bool(tasks)

    def cancel_client(self, client_id: str) -> None:
        """Cancel all generations of a client that has died: Triton does not cancel them inside an ensemble."""
        for task, outgoing in self:
            if outgoing.reply.client_id == client_id:
                task.cancel()

    def cancel_each(self) -> None:
        """Cancel all generations, without waiting for their end."""
        for task, _ in self:
            task.cancel()

    async def cancel_all(self) -> None:
        """Cancel everything and wait until it has ended."""
        self.cancel_each()
        await asyncio.gather(*(task for task, _ in self), return_exceptions=True)

    def _remove(self, request_id: str, task: "asyncio.Task[None]") -> None:
        tasks = self._tasks[request_id]
        outgoing = tasks.pop(task)
        if task.cancelled():
            self._cancelled_early(outgoing)
        if not tasks:
            del self._tasks[request_id]
        self._changed()
