# SPDX-License-Identifier: Apache-2.0
"""Write parts of a response's body past the layers of the application, which cost more than the write itself."""

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class BodyParts:
    """Writes parts of a body as uvicorn's `send` does."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle

    @property
    def ready(self) -> bool:
        """Whether a part can be written: the body has begun, consists of chunks, and its client reads."""
        cycle = self._cycle
        return bool(cycle.chunked_encoding) and not (
            cycle.flow.write_paused
            or cycle.response_complete
            or cycle.disconnected
            or cycle.transport.is_closing()  # uvloop's transport then raises an error.
        )

    def write(self, part: bytes) -> None:
        """Write a part, which is not empty, if `ready`."""
        self._cycle.transport.write(b"%x\r\n%b\r\n" % (len(part), part))
