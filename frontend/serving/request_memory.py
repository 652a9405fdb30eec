# SPDX-License-Identifier: Apache-2.0
"""The memory that the requests of one process may take together: large bodies, what is made of them, and pictures.

A request reserves room before its body is read. While there is none it waits, first come, first served, and costs
nothing: its client cannot send. What is reserved is an upper estimate, measured with 32 of the largest at once.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from frontend.errors import ApiError

# Bytes of a body that need no room, so that the many small requests never wait. The server reads as much ahead.
FREE = 64 * 2**10
# Until the first token, for each byte: the body or what was parsed from it, the prompt or the pictures made of that,
# and three copies on the way to Triton: the message, its serialized form, and gRPC's.
PARSED, SENT = 2, 3
# A character above U+FFFF makes a Python string take four bytes for each character.
_WIDEST = 4
# Bytes of an empty list or dict and its place in another; of a name, a number or a text, and what is made of it.
_CONTAINER, _VALUE = 72, 64


_Queue = deque[tuple[int, asyncio.Future[bool]]]


class RequestMemory:
    """The room of one process. limit: bytes. patience: seconds that a request may wait for room.

    A fourth is for pictures that are fetched, whose size is not known beforehand: they do not wait, and large bodies
    never keep them out.
    """

    def __init__(self, limit: int, patience: float) -> None:
        self._picture_limit = limit // 4
        self._limit = limit - self._picture_limit
        self._patience = patience
        # Requests that hold nothing yet, and those that need more than they hold. A turn tells whether it is beyond the
        # limit.
        self._queue: _Queue = deque()
        self._extending: _Queue = deque()
        self._excess = False
        self.held = self.pictures = 0

    async def acquire(self, size: int) -> int:
        """Wait for room, and return how much: one that needs more than there is gets all, and runs alone.

        `release` gives it back. Raises ApiError if there is none within the patience.
        """
        size = min(size, self._limit)
        await self._wait(self._queue, size)
        return size

    async def extend(self, size: int) -> bool:
        """Wait for more room for one that holds some, beyond the limit if need be. Raises ApiError as `acquire` does.

        One request at a time may go beyond, so that those which hold room never wait for each other for ever: if it
        returns True, `end_excess` lets the next one do so.
        """
        return await self._wait(self._extending, size)

    @property
    def exceeded(self) -> bool:
        """Whether more is held than the limit."""
        return self.held > self._limit

    def end_excess(self) -> None:
        """Let another request go beyond the limit."""
        self._excess = False
        self._grant()

    def take_picture(self, size: int, own: int) -> int:
        """Reserve room for a request that has `own` of it, and return how much. Raises ApiError if there is none."""
        size = max(0, min(size, self._picture_limit - own))
        if self.pictures + size > self._picture_limit:
            raise _no_room()
        self.pictures += size
        return size

    def release_pictures(self, size: int) -> None:
        """Give back their room."""
        self.pictures -= size

    def release(self, size: int) -> None:
        """Give back room to those that wait."""
        self.held -= size
        self._grant()

    async def _wait(self, queue: _Queue, size: int) -> bool:
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queue.append((size, turn))
        self._grant()
        try:
            async with asyncio.timeout(self._patience):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                # The room was given in the same moment.
                self.release(size)
                if turn.result():
                    self.end_excess()
            else:
                if (size, turn) in queue:
                    queue.remove((size, turn))
                self._grant()
            if isinstance(error, TimeoutError):
                raise _no_room() from None
            raise

    def _grant(self) -> None:
        """Give room to those whose turn it is, first to those that hold some."""
        while self._extending and (self.held + self._extending[0][0] <= self._limit or not self._excess):
            size, turn = self._extending.popleft()
            if turn.done():  # cancelled a moment ago
                continue
            self.held += size
            self._excess = self._excess or self.exceeded
            turn.set_result(self.exceeded)
        while self._queue and not self._extending and self.held + self._queue[0][0] <= self._limit:
            size, turn = self._queue.popleft()
            if turn.done():
                continue
            self.held += size
            turn.set_result(False)


class HeldMemory:
    """What one request holds; a context manager that gives it back."""

    def __init__(self, memory: RequestMemory) -> None:
        self._memory = memory
        self._parsed = self._sent = self._pictures = 0
        self._beyond = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release_sent()

    async def reserve_body(self, size: int) -> None:
        """Reserve room for a body of this size and for what is usually made of it. Raises ApiError."""
        held = await self._memory.acquire((PARSED + SENT) * size)
        self._sent = held * SENT // (PARSED + SENT)
        self._parsed = held - self._sent

    def fit_body(self, size: int) -> None:
        """Give back what was reserved for a longer body than has come."""
        held = min((PARSED + SENT) * size, self._parsed + self._sent)
        self._memory.release(self._parsed + self._sent - held)
        self._sent = held * SENT // (PARSED + SENT)
        self._parsed = held - self._sent

    async def reserve_values(self, body: bytes | bytearray) -> None:
        """Reserve what the values of a body take beyond the usual: lists, numbers, wide texts. Raises ApiError."""
        if len(body) > FREE:
            self._parsed += await self._extend(weigh(body) + len(body) - self._parsed)

    async def reserve_sent(self, size: int) -> None:
        """Reserve room for the messages to Triton, of this size together. Raises ApiError."""
        self._sent += await self._extend(SENT * size - self._sent)

    def take_picture(self, size: int) -> None:
        """Reserve room for some bytes of a picture that is fetched. Raises ApiError if there is none."""
        self._pictures += self._memory.take_picture(size, self._pictures)

    def release_sent(self, kept: int = 0) -> None:
        """Give back all but `kept` bytes, which the answer needs of a large body: Triton has the rest."""
        kept = min(kept, self._parsed)
        self._memory.release(self._sent + self._parsed - kept)
        self._memory.release_pictures(self._pictures)
        # What it keeps may still be beyond the limit.
        if self._beyond and (kept == 0 or not self._memory.exceeded):
            self._beyond = False
            self._memory.end_excess()
        self._parsed, self._sent, self._pictures = kept, 0, 0

    async def _extend(self, size: int) -> int:
        if size <= 0:
            return 0
        if self._beyond:
            self._memory.held += size
        else:
            self._beyond = await self._memory.extend(size)
        return size


def weigh(body: bytes | bytearray) -> int:
    """Return the bytes that a JSON body takes at most once it is parsed. Punctuation inside of strings counts too."""
    wide = not body.isascii() or b"\\u" in body
    containers, values = body.count(b"[") + body.count(b"{"), body.count(b",") + body.count(b":")
    return len(body) * (_WIDEST if wide else 1) + _CONTAINER * containers + _VALUE * values


def _no_room() -> ApiError:
    return ApiError("overloaded", "Too many large requests at once; try again later")
