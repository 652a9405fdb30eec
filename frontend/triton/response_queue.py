# SPDX-License-Identifier: Apache-2.0
"""The queue between the reader of the stream and the task of a request."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from frontend.triton.tensors import Delta, text_size

Deltas = list[tuple[int, Delta]]


class Listener(Protocol):
    """Takes deltas as they come, while `ResponseQueue.take` waits. What it raises ends its generation."""

    def take_text(self, choice: int, text: str) -> bool:
        """Take a delta that is only text, before which nothing waits; False leaves it to the queue."""

    def take(self, delta: Delta) -> bool:
        """Take what waits, of which this is the last, now or later; False lets `ResponseQueue.take` return it."""


class ResponseQueue:
    """The deltas of one generation, with their choices; `fail` ends it early.

    `take` returns all waiting deltas at once, so that a slow reader gets few large ones, a fast one many small.
    generated: the tokens of each choice so far, as far as its responses tell, those that wait included.
    """

    def __init__(self) -> None:
        self._waiting: Deltas = []
        self._size = 0
        self._error: Exception | None = None
        self._filled = asyncio.Event()
        self._listener: Listener | None = None
        self.generated: dict[int, int] = {}

    def put(self, choice: int, delta: Delta, size: int, tokens: int | None = None) -> None:
        """Add a delta. size: its bytes, more or less. tokens: those of the choice so far; None if only it tells."""
        if tokens is None:
            tokens = delta.completion_tokens
        if tokens is None:
            tokens = self.generated.get(choice, 0) + _least_tokens(delta)
        self.generated[choice] = tokens
        self._waiting.append((choice, delta))
        self._size += size
        if self._listener is None or not self._taken(self._listener.take, delta):
            self.wake()

    def put_text(self, choice: int, text: str, tokens: int | None = None) -> None:
        """Add a delta that is only text. tokens: those of the choice so far; None if they are not known."""
        if tokens is not None:
            self.generated[choice] = tokens
        if self._waiting or self._listener is None or not self._taken(self._listener.take_text, choice, text):
            self.put(choice, Delta(text), text_size(text), tokens)

    def _taken(self, take: Callable[..., bool], *what: Any) -> bool:
        """Whether the listener has taken something, or has failed and so ended the generation."""
        try:
            return take(*what)
        except Exception as error:
            # The reader of the stream, which calls this, serves all other requests too.
            self.fail(error)
            return True

    def size(self) -> int:
        """Return the size of the waiting deltas in bytes, more or less."""
        return self._size

    def fail(self, error: Exception) -> None:
        """End with an error, after the waiting deltas. Only the first error counts."""
        if self._error is None:
            self._error = error
        self.wake()

    @property
    def listened(self) -> bool:
        """Whether what waits is left to the listener of `take`."""
        return self._listener is not None

    def wake(self) -> None:
        """Let `take` return what waits, if anything does."""
        if self._waiting or self._error is not None:
            self._listener = None
            self._filled.set()

    def take_waiting(self) -> Deltas:
        """Return all waiting deltas."""
        taken, self._waiting, self._size = self._waiting, [], 0
        return taken

    async def take(self, listener: Listener | None = None) -> Deltas:
        """Wait for deltas and return all of them; raises the error given to `fail` if none are left.

        listener: takes deltas as they come, as long as it can: a change of tasks costs more than the rest.
        """
        self._listener = None if self._filled.is_set() else listener
        try:
            await self._filled.wait()
        finally:
            self._listener = None
        if not self._waiting:
            assert self._error is not None  # nosec B101 # narrows a type, checks no input
            raise self._error
        if self._error is None:
            self._filled.clear()
        return self.take_waiting()


def _least_tokens(delta: Delta) -> int:
    """Return how many tokens a delta without a count has at least."""
    return len(delta.logprobs) or int(bool(delta.text or delta.reasoning or delta.tool_calls))
