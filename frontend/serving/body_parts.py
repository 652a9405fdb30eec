# SPDX-License-Identifier: Apache-2.0
"""Write parts of a response's body past the layers of the application, which cost more than the write itself."""

import weakref

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class BodyParts:
    """Writes parts of a body as uvicorn's `send` does.

    It is in the cycle's own scope: a reference back would leave each request to the garbage collector.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = weakref.ref(cycle)
        self._transport = cycle.transport

    @property
    def ready(self) -> bool:
        """Whether a part can be written: the body has begun, consists of chunks, and its client reads."""
        cycle = self._cycle()
        return cycle is not None and not (
            not cycle.chunked_encoding
            or cycle.flow.write_paused
            or cycle.response_complete
            or cycle.disconnected
            or self._transport.is_closing()  # uvloop's transport then raises an error.
        )

    def write(self, part: bytes) -> None:
        """Write a part, which is not empty, if `ready`."""
        self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
