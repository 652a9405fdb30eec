# SPDX-License-Identifier: Apache-2.0
"""The log format of every process, as text or as JSON, with a request's id under the same name in all of them.

A record may carry data in `extra={"fields": {...}}`: keys of the JSON object, `key=value` in text.
"""

import logging
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
    """Formats a record as one line of text.

    Control characters are escaped: text from a client can neither begin another line nor move a terminal's cursor.
    """

    def __init__(self, *, verbose: bool = True) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._verbose = verbose

    def formatException(self, ei: Any) -> str:
        """Format the traceback."""
        return super().formatException(ei) if self._verbose else redacted_traceback(ei[1])

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the line without a traceback."""
        fields = "".join(f" {key}={_word(value)}" for key, value in fields_of(record).items())
        return _UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], super().formatMessage(record) + fields)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time (UTC), level, logger, message, the record's fields, exception."""

    def __init__(self, *, verbose: bool = True) -> None:
        super().__init__()
        self._verbose = verbose

    def formatException(self, ei: Any) -> str:
        """Format the traceback."""
        return super().formatException(ei) if self._verbose else redacted_traceback(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        """Format the whole line."""
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
    """Return the record's fields that are not None."""
    given: Mapping[str, Any] = getattr(record, "fields", {})
    return {key: value for key, value in given.items() if value is not None}


def about(*triton_ids: str) -> dict[str, Any]:
    """Return the `extra` of a line about Triton requests: logger.error("it failed", extra=about(request.request_id())).

    The frontend's ids for Triton are `<X-Request-Id>/<answer id>-<choice>`; a client of Triton may have any other.
    """
    names = dict.fromkeys(one.rpartition("/")[0] or one for one in triton_ids)
    return {"fields": {"request_id": " ".join(names), "triton_request_id": " ".join(triton_ids)}}


def redacted_traceback(error: BaseException) -> str:
    """Format the frames and the types of an error and its causes without their messages, which may quote a prompt."""
    chain: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    # An error may be among its own causes.
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = "".join(traceback.format_tb(cause.__traceback__))
        chain.append(f"{frames}{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(reversed(chain))


def handler(log_format: str, *, verbose: bool = True) -> logging.Handler:
    """Return a handler that writes to stderr. Raises ValueError for a format that is not in FORMATS.

    verbose: write error messages with tracebacks. Only for processes that see no text of prompts or answers.
    """
    if log_format not in FORMATS:
        raise ValueError(f"unknown log format '{log_format}'; known: {', '.join(FORMATS)}")
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(JsonFormatter(verbose=verbose) if log_format == "json" else TextFormatter(verbose=verbose))
    return stream


def _word(value: Any) -> str:
    """Write a value for a text line: as it is if it is one plain word, or else as JSON."""
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if _PLAIN.fullmatch(text) else _json(text)


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # A lone surrogate, which is no UTF-8, or a number beyond 64 bits.
        return orjson.dumps(repr(value)).decode() if isinstance(value, str) else _json(_as_text(value))


def _as_text(line: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value).encode("utf-8", "backslashreplace").decode() for key, value in line.items()}
