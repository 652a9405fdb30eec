# SPDX-License-Identifier: Apache-2.0
"""Connect the processes of one engine: the instances of `tensorrt_llm` that are clients of the same engine core.

Triton starts them at the same time or one after the other, and gives a request to any of them. The first one starts the
engine core and listens; the others connect to it. A question to all of them, such as which one has a request that is to
be stopped, goes through the first.

When Triton loads a model again, the processes of both loads run for a while. So each first process takes the lowest
free number of the model's names, and has one place for each of the others: theirs are those that find it free.
"""

import asyncio
import hashlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from common.processes import read_process
from engines.peer_link import MAX_BYTES, PeerLink
from engines.shared_count import SharedCount
from engines.tied_process import tied_to

# Loads of one model that may overlap.
_NAMES = 8
FIRST_HAS_ENDED = "the process that starts the engine has ended: its own error says why"
# How long the first process may take to its first steps, which take the others as long.
FIND_TIMEOUT_S = 300.0
_FIND_PERIOD_S = 0.1
# How long the others may take to end what they run when the first one stops the engine, and to answer in general.
END_TIMEOUT_S, ANSWER_TIMEOUT_S = 10.0, 5.0
# struct ucred: process, user, group.
_CREDENTIALS = struct.Struct("3i")

# Answers a question of another process: its name, and what it is about.
Answer = Callable[[str, Any], Awaitable[Any]]


class Peers:
    """The other processes of this engine. Used on the engine's event loop only.

    model: the Triton model's name. index: the number of this process, 0 is the first one; count: of all of them.
    answer: called for questions of the others. Questions and answers are what JSON can hold.
    lost: called in the others when the first process has ended without saying so: the engine has ended with it.
    """

    def __init__(self, model: str, index: int, count: int, answer: Answer, lost: Callable[[], None]) -> None:
        self.index, self.count = index, count
        self._model, self._answer, self._lost = model, answer, lost
        self._tritonserver = os.getppid()
        self._first_pid: int | None = None
        # Of the first process: by the numbers of the others. In the others: only that of the first.
        self._links: dict[int, PeerLink] = {}
        self._strangers: set[PeerLink] = set()
        self._taken: set[int] = set()
        self._server: asyncio.Server | None = None
        self._given: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ended = False
        self._running: SharedCount | None = SharedCount(count, 0) if index == 0 else None

    @property
    def first(self) -> bool:
        """Whether this process starts the engine."""
        return self.index == 0

    async def start(self) -> None:
        """Listen, or connect to the first process; raises RuntimeError if that is not to be found."""
        if self.first:
            await self._listen()
            return
        loop = asyncio.get_running_loop()
        end = loop.time() + FIND_TIMEOUT_S
        while not await self._connect():
            if loop.time() > end:
                raise RuntimeError(f"the process that starts the engine did not begin in {FIND_TIMEOUT_S:g} s")
            await asyncio.sleep(_FIND_PERIOD_S)

    def running(self, here: int) -> int:
        """The generations in all processes. here: those in this one, which the others are told with it."""
        if self._running is None:
            return here
        self._running.set(here)
        return self._running.total()

    def give(self, value: Any) -> None:
        """Say to the others, also to those that come later, that the engine runs, and how to reach it."""
        self._given.set_result(value)

    async def given(self) -> Any:
        """Wait for the engine to run; raises RuntimeError if it could not be started."""
        try:
            return await self._links[0].ask("given", None)
        except ConnectionError:
            raise RuntimeError(FIRST_HAS_ENDED) from None

    @contextmanager
    def tied_to_first(self) -> Iterator[None]:
        """End this process if the first one ends in the context, in which the event loop may stand still.

        Only in the others, after `start`. Raises RuntimeError if the first one has ended before.
        """
        assert self._first_pid is not None  # nosec B101 # narrows a type, checks no input
        try:
            with tied_to(self._first_pid):
                yield
        except ProcessLookupError:
            raise RuntimeError(FIRST_HAS_ENDED) from None

    async def ask_all(self, question: str, about: Any = None) -> dict[int, Any]:
        """Ask all others; returns their answers by their numbers.

        Those of processes that end meanwhile, fail or stand still are missing.
        """
        if self.first:
            return await self._ask_others(self.index, question, about)
        with suppress(KeyError, ConnectionError, TimeoutError):
            asked = self._links[0].ask("all", [question, about])
            # Pairs, as JSON has no numbers as keys.
            return dict(await asyncio.wait_for(asked, 2 * ANSWER_TIMEOUT_S))
        return {}

    async def close(self) -> None:
        """Disconnect. The first process lets the others end what they run before, as it stops the engine next."""
        self._ended = True
        if self.first:
            await self._ask_others(self.index, "end", None, END_TIMEOUT_S)
        if self._server is not None:
            self._server.close()
        if not self._given.done():
            self._given.cancel()
        for link in (*self._links.values(), *self._strangers):
            link.close()
        if self._running is not None:
            self._running.close()
            self._running = None

    async def _listen(self) -> None:
        for name in self._names():
            with suppress(OSError):
                self._server = await asyncio.start_unix_server(self._accept, name, limit=MAX_BYTES)
                return
        raise RuntimeError(f"{_NAMES} loads of the model {self._model} run at the same time")

    def _names(self) -> list[str]:
        """Names in the abstract namespace, which end with their process. The model's own may be too long for one."""
        model = hashlib.sha256(self._model.encode()).hexdigest()[:16]
        return [f"\0triton-chat-engine-{self._tritonserver}-{model}-{number}" for number in range(_NAMES)]

    async def _connect(self) -> bool:
        """Take the place of this process beside a first one that has it free, if there is one."""
        for name in self._names():
            try:
                reader, writer = await asyncio.open_unix_connection(name, limit=MAX_BYTES)
            except OSError:
                continue
            link = PeerLink(reader, writer, self._answer_first, self._first_is_gone)
            with suppress(ConnectionError):
                pid = self._sibling(writer)
                if pid is not None and (count := await link.ask("join", self.index)) is not None:
                    self._links[0], self._first_pid = link, pid
                    self._running = SharedCount(self.count, self.index, count)
                    return True
            link.close()
        return False

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._sibling(writer) is None:
            writer.close()
            return
        numbers: list[int] = []

        async def answer(question: str, about: Any) -> Any:
            if question == "join":
                if about in self._taken or not 0 < about < self.count:
                    return None
                self._taken.add(about)
                numbers.append(about)
                self._links[about] = link
                return self._running and self._running.path
            if question == "given":
                return await asyncio.shield(self._given)
            question, about = about
            own, others = await asyncio.gather(
                self._answer(question, about), self._ask_others(numbers[0], question, about)
            )
            return [(self.index, own), *others.items()]

        def gone() -> None:
            self._strangers.discard(link)
            for number in numbers:
                self._links.pop(number, None)

        link = PeerLink(reader, writer, answer, gone)
        self._strangers.add(link)

    async def _ask_others(
        self, asker: int, question: str, about: Any, timeout_s: float | None = None
    ) -> dict[int, Any]:
        links = {number: link for number, link in self._links.items() if number != asker}
        asked = [asyncio.wait_for(link.ask(question, about), timeout_s or ANSWER_TIMEOUT_S) for link in links.values()]
        answers = zip(links, await asyncio.gather(*asked, return_exceptions=True), strict=True)
        return {number: answer for number, answer in answers if not isinstance(answer, BaseException)}

    async def _answer_first(self, question: str, about: Any) -> Any:
        if question == "end":
            self._ended = True
        return await self._answer(question, about)

    def _first_is_gone(self) -> None:
        if 0 in self._links and not self._ended:
            self._lost()

    def _sibling(self, writer: asyncio.StreamWriter) -> int | None:
        """The other end's id if it is a process of the same tritonserver: anybody may use these names."""
        connection: socket.socket = writer.get_extra_info("socket")
        pid, user, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        process = read_process(pid)
        same = user == os.getuid() and process is not None and process.parent == self._tritonserver
        return pid if same else None
