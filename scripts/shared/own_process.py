# SPDX-License-Identifier: Apache-2.0
"""Work that needs hundreds of megabytes for some seconds, in a process of its own."""

import ctypes
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

from scripts.shared.errors import CommandError

_PR_SET_PDEATHSIG = 1
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_own_process(
    function: Callable[_Arguments, _Result], *arguments: _Arguments.args, **named: _Arguments.kwargs
) -> _Result:
    """Call a function of a module in another process: packages that it imports and memory that it takes end with it.

    Returns its result or raises its error, and CommandError if the process is killed.
    """
    # Not forked: other threads of this process may hold locks.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        try:
            return pool.submit(function, *arguments, **named).result()
        except BrokenProcessPool as error:
            raise CommandError("the process that converts the model was killed.", "Is there enough memory?") from error


def _end_with_parent() -> None:
    """End at once at Ctrl-C, which the parent reports, and when the parent is gone, even by kill -9."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
