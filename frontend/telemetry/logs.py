# SPDX-License-Identifier: Apache-2.0
"""Set up the frontend's log."""

import logging

from common.logs import handler
from frontend.telemetry.request_record import CURRENT

# Libraries that would write whole URLs, queries included.
_TALKATIVE = ("httpx", "httpcore")


def set_up(level: str, log_format: str) -> None:
    """Give this process one handler for everything that it logs. log_format: one of common.logs.FORMATS."""
    root = logging.getLogger()
    writer = handler(log_format, verbose=level == "debug")
    writer.addFilter(_add_request_id)
    root.handlers = [writer]
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)


def _add_request_id(line: logging.LogRecord) -> bool:
    """Give a line that is written while a request is served the request's id."""
    record = CURRENT.get()
    if record is not None:
        line.fields = {"request_id": record.request_id} | getattr(line, "fields", {})
    return True
