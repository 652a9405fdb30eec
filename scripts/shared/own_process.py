# SPDX-License-Identifier: Apache-2.0
"""Work that needs hundreds of megabytes for some seconds, in a process of its own."""

import pickle  # nosec B403 # of errors that this process reads back
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from scripts.shared.errors import CommandError
from scripts.shared.parent_death import signal_when_parent_ends

_SECONDS_TO_END = 5.0

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_own_process(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Call a function of a module in another process: packages that it imports and memory that it takes end with it.

    Returns its result or raises its error, and CommandError if the process is killed. It is killed if this call is left
    by another error, such as KeyboardInterrupt.
    """
    # Not forked: other threads of this process may hold locks.
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, function, arguments, named), daemon=True)
    process.start()
    sender.close()
    try:
        result, error = receiver.recv()
        # Killed at once it would leave semaphores to Python's resource tracker, which warns of them.
        process.join(_SECONDS_TO_END)
    except EOFError:
        raise CommandError("the process that converts the model was killed.", "Is there enough memory?") from None
    finally:
        process.kill()
        process.join()
        receiver.close()
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return] # what `function` has returned


def _work(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    # At Ctrl-C, which the parent reports, and when the parent is gone, even by kill -9.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal_when_parent_ends(signal.SIGKILL)
    try:
        sender.send((function(*arguments, **named), None))
    except Exception as error:
        sender.send((None, _portable(error)))


def _portable(error: Exception) -> Exception:
    """Return the error, or one that says the same if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # nosec B301 # made here
    except Exception:
        return CommandError(f"{type(error).__name__}: {error}")
    return error
