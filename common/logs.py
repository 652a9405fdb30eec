# SPDX-License-Identifier: Apache-2.0
"""Log lines of every process: one shape as text, one as JSON, and a request's id under the same name in all of them.

What a record carries in `extra={"fields": {...}}` is data of its own: keys of the JSON object, `key=value` in text.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

FORMATS = ("text", "json")
LEVELS = ("critical", "error", "warning", "info", "debug")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[\w.:/+-]+")


class TextFormatter(logging.Formatter):
    """One line for people; what a client sent cannot begin another line, nor move a terminal's cursor."""

    def __init__(self, *, verbose: bool = True) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._verbose = verbose

    def formatException(self, ei: Any) -> str:
        """The traceback."""
        return super().formatException(ei) if self._verbose else redacted_traceback(ei[1])

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line without a traceback."""
        told = "".join(f" {key}={_word(value)}" for key, value in fields_of(record).items())
        return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], super().formatMessage(record) + told)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the record's fields, exception if there is one."""

    def __init__(self, *, verbose: bool = True) -> None:
        super().__init__()
        self._verbose = verbose

    def formatException(self, ei: Any) -> str:
        """The traceback."""
        return super().formatException(ei) if self._verbose else redacted_traceback(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        """The object as text."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _json(line)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the record tells beside its message; fields that are None are left out."""
    given: Mapping[str, Any] = getattr(record, "fields", {})
    return {key: value for key, value in given.items() if value is not None}


def about(*triton_ids: str) -> dict[str, Any]:
    """`extra` of a line about requests of Triton's: logger.error("it failed", extra=about(request.request_id())).

    The frontend's ids for Triton are `<X-Request-Id>/<answer id>-<choice>`; a client of Triton may have any other.
    """
    names = dict.fromkeys(one.rpartition("/")[0] or one for one in triton_ids)
    return {"fields": {"request_id": " ".join(names), "triton_request_id": " ".join(triton_ids)}}


def redacted_traceback(error: BaseException) -> str:
    """Where an error came from and of which type it is, but not what it says: that may be a piece of a prompt."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        frames = "".join(traceback.format_tb(cause.__traceback__))
        chain.append(f"{frames}{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(reversed(chain))


def handler(log_format: str, *, verbose: bool = True) -> logging.Handler:
    """A handler that writes to stderr; raises ValueError for a format that is not in FORMATS.

    verbose: tracebacks end with what the error says, which only processes that see no text may write unasked.
    """
    if log_format not in FORMATS:
        raise ValueError(f"unknown log format '{log_format}'; known: {', '.join(FORMATS)}")
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter(verbose=verbose) if log_format == "json" else TextFormatter(verbose=verbose))
    return stream


def model_logger(name: str, *, verbose: bool, environment: Mapping[str, str] = os.environ) -> logging.Logger:
    """The logger of a Triton model. It writes by itself, so that no library that sets up the root logger changes it.

    verbose: as for `handler`; at the level debug every model is.
    TRITON_CHAT_LOG_FORMAT and TRITON_CHAT_LOG_LEVEL are the frontend's own settings. Raises ValueError for others.
    """
    logger = logging.getLogger(name)
    level = (environment.get("TRITON_CHAT_LOG_LEVEL") or "info").strip().lower()
    if level not in LEVELS:
        raise ValueError(f"unknown log level '{level}'; known: {', '.join(LEVELS)}")
    logger.setLevel(level.upper())
    log_format = (environment.get("TRITON_CHAT_LOG_FORMAT") or "text").strip().lower()
    logger.handlers = [handler(log_format, verbose=verbose or level == "debug")]
    logger.propagate = False
    return logger


def _word(value: Any) -> str:
    """A value in a text line: bare where it is one plain word, else as JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else _json(text)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # A lone surrogate, which is no UTF-8, or a number beyond 64 bits.
        return orjson.dumps(repr(value)).decode() if isinstance(value, str) else _json(_spoken(value))


def _spoken(line: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in line.items()}
