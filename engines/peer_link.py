# SPDX-License-Identifier: Apache-2.0
"""Questions and answers between two processes: one JSON array a line on a socket, in both directions."""

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger("tensorrt_llm")
_ASK, _ANSWER, _FAILURE = "ask", "answer", "failure"
# Of a line: ids of requests are the clients' own.
MAX_BYTES = 2**20


class PeerLink:
    """One end of a connection. Used on one event loop.

    answer: called for each question of the other end. closed: called once when the connection has ended, unless by
    `close`.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Callable[[str, Any], Awaitable[Any]],
        closed: Callable[[], None],
    ) -> None:
        self._reader, self._writer, self._answer, self._closed = reader, writer, answer, closed
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())

    async def ask(self, question: str, about: Any) -> Any:
        """Ask the other end, and wait for the answer.

        Raises ConnectionError if it fails, or ends before, or if the question is longer than a line may be.
        """
        if self._reading.done():
            raise ConnectionError
        number = next(self._numbers)
        self._asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            self._write(_ASK, number, [question, about])
            return await answer
        finally:
            del self._asked[number]

    def close(self) -> None:
        """End the connection; who waits for an answer gets ConnectionError."""
        self._reading.cancel()
        self._end()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                self._take(*json.loads(line))
        except OSError:
            # The other process was killed.
            pass
        except ValueError:
            log.exception("the connection of two processes of the engine has failed")
        self._end()
        self._closed()

    def _take(self, kind: str, number: int, value: Any) -> None:
        if kind == _ASK:
            task = asyncio.create_task(self._reply(number, *value))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif (asked := self._asked.get(number)) is not None and not asked.done():
            if kind == _ANSWER:
                asked.set_result(value)
            else:
                asked.set_exception(ConnectionError(value))

    async def _reply(self, number: int, question: str, about: Any) -> None:
        try:
            self._write(_ANSWER, number, await self._answer(question, about))
        except Exception as error:
            log.exception("a question of another process of the engine failed")
            self._write(_FAILURE, number, str(error))

    def _write(self, kind: str, number: int, value: Any) -> None:
        line = json.dumps([kind, number, value]).encode() + b"\n"
        if len(line) > MAX_BYTES:
            # The other end would take the connection for broken.
            raise ConnectionError("the message is too long")
        self._writer.write(line)

    def _end(self) -> None:
        self._writer.close()
        for task in self._tasks:
            task.cancel()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ConnectionError("the other process has ended"))
