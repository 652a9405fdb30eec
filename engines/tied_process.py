# SPDX-License-Identifier: Apache-2.0
"""End this process together with another one, while its own code blocks."""

import logging
import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engines.dead_engine import EXIT_STATUS

log = logging.getLogger("tensorrt_llm")


@contextmanager
def tied_to(pid: int) -> Iterator[None]:
    """End this process if another one ends in the context. Raises ProcessLookupError if it has ended before.

    For code that blocks until the other process answers: no exception reaches it.
    """
    other = os.pidfd_open(pid)
    left, leave = os.pipe()

    def watch() -> None:
        poll = select.poll()
        for descriptor in (other, left):
            poll.register(descriptor, select.POLLIN | select.POLLHUP)
        if any(descriptor == left for descriptor, _ in poll.poll()):
            return
        log.error("the process that started the engine has ended; ending this one")
        os._exit(EXIT_STATUS)

    thread = threading.Thread(target=watch, name="tied-to", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.close(leave)
        thread.join()
        os.close(other)
        os.close(left)
