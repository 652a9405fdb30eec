# SPDX-License-Identifier: Apache-2.0
"""Log formats: one line each, valid JSON, and tracebacks without messages."""

import json
import logging

import pytest

from common.logs import JsonFormatter, TextFormatter


def line(message: str, *args: object, error: BaseException | None = None, **fields: object) -> logging.LogRecord:
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("name", logging.WARNING, "file", 1, message, args, info)
    record.fields = fields
    return record


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def test_a_text_line_is_one_line() -> None:
    text = TextFormatter().format(
        line("path %s", "/a\n2026 ERROR forged \x1b[2J\u2028", path="x y\r\n", n=3, none=None)
    )
    assert "\n" not in text and "\r" not in text and "\x1b" not in text and "\u2028" not in text
    assert text.endswith(r'path="x y\r\n" n=3')
    assert r"WARNING name: path /a\n2026 ERROR forged \x1b[2J" in text


@pytest.mark.parametrize("value", ['a\n"b"', "\ud800", 2**70, 0.25, {"a": 1}, "é"])
def test_a_json_line_is_one_object(value: object) -> None:
    text = JsonFormatter().format(line("said %s", "\n", value=value, gone=None))
    assert "\n" not in text
    read = json.loads(text)
    assert (read["level"], read["logger"], read["message"]) == ("warning", "name", "said \n")
    assert "gone" not in read and read["time"].endswith("+00:00")
    if value not in ("\ud800", 2**70):
        assert read["value"] == value


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_a_redacted_traceback_has_frames_and_types_only(formatter: type) -> None:
    error = raised(KeyError("my secret prompt"), raised(ValueError("another secret")))
    quiet = formatter(verbose=False).format(line("it failed", error=error))
    assert "secret" not in quiet
    assert "builtins.KeyError" in quiet and "builtins.ValueError" in quiet and "test_logs.py" in quiet
    assert "my secret prompt" in formatter().format(line("it failed", error=error))


def test_an_error_among_its_own_causes_ends() -> None:
    error = ValueError("secret")
    text = TextFormatter(verbose=False).format(line("it failed", error=raised(error, error)))
    assert text.count("builtins.ValueError") == 1
    first, second = raised(ValueError()), KeyError()
    first.__cause__, second.__cause__ = second, first
    text = TextFormatter(verbose=False).format(line("it failed", error=first))
    assert text.count("builtins.ValueError") == text.count("builtins.KeyError") == 1
