# SPDX-License-Identifier: Apache-2.0
"""Operations on the served models: generators that the launcher's main thread goes on with, step by step."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from scripts.launcher.repository import Call

# What an operation yields: nothing, while it waits. Its value is a line that says what was done.
Steps = Generator[None, None, Any]
LIST, LOAD, UNLOAD, RELOAD, APPLY = "list", "load", "unload", "reload", "apply"


class OperationError(Exception):
    """An operation cannot be done. status: as in HTTP."""

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.status = status


class Command:
    """An operation that somebody asks for, from any thread. verb: LIST, LOAD, ... name: the model's, "" for all.

    message: what was done. models: every model after it, as JSON. error: why it was not done.
    """

    def __init__(self, verb: str, name: str = "") -> None:
        self.verb, self.name = verb, name
        self.message = ""
        self.models: dict[str, dict[str, Any]] = {}
        self.error: OperationError | None = None
        self._finished = Event()

    def finish(self, message: str = "", error: OperationError | None = None) -> None:
        """Tell who waits how it ended."""
        self.message, self.error = message, error
        self._finished.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; returns whether it has come."""
        return self._finished.wait(timeout_s)


@dataclass(eq=False)
class Operation:
    """An operation in progress. models: the names of those that it still changes, None for all of them."""

    steps: Steps
    models: Sequence[str] | None = ()
    ended: Callable[[str, OperationError | None], None] = field(default=lambda message, error: None)


class Operations:
    """The operations in progress."""

    def __init__(self) -> None:
        self._running: list[Operation] = []
        # How many have ended: what was seen before the last one may be out of date.
        self.count = 0

    def busy(self, model: str) -> bool:
        """Whether an operation changes this model."""
        return any(one.models is None or model in one.models for one in self._running)

    def begin(self, operation: Operation) -> None:
        """Begin an operation."""
        self._running.append(operation)
        self._advance(operation)

    def step(self) -> None:
        """Go on with every operation until it waits again."""
        for operation in list(self._running):
            self._advance(operation)

    def abort(self, error: OperationError) -> None:
        """End every operation."""
        for operation in list(self._running):
            operation.steps.close()
            self._end(operation, "", error)

    def _advance(self, operation: Operation) -> None:
        try:
            next(operation.steps)
        except StopIteration as end:
            self._end(operation, end.value or "", None)
        except OperationError as error:
            self._end(operation, "", error)
        except Exception as error:
            # Such as a full disk: no reason to end the other models with this one.
            self._end(operation, "", OperationError(f"{type(error).__name__}: {error}"))

    def _end(self, operation: Operation, message: str, error: OperationError | None) -> None:
        self._running.remove(operation)
        self.count += 1
        operation.ended(message, error)


def ended(call: Call) -> Generator[None, None, Call]:
    """Wait for a call; returns it."""
    while not call.done:
        yield
    return call
