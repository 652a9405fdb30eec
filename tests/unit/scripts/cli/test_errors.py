# SPDX-License-Identifier: Apache-2.0
"""Errors and Ctrl-C end every command of `triton-chat` in the same way."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from scripts.bench.errors import BenchError
from scripts.cli import main as command_line
from scripts.launcher import LaunchError
from scripts.shared.errors import CommandError, EngineError, ManifestError
from scripts.split.errors import SplitError


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException, name: str = "serve") -> int:
    """Run a command whose module raises the error; returns the exit status."""

    def fail(arguments: Sequence[str]) -> int:
        raise error

    module = ModuleType("command")
    monkeypatch.setattr(module, "main", fail, raising=False)
    monkeypatch.setattr(command_line, "import_module", lambda name: module)
    return command_line.main([name])


@pytest.mark.parametrize("kind", [CommandError, LaunchError, EngineError, ManifestError, SplitError, BenchError])
def test_an_error_is_printed_with_its_log_and_its_notes(
    kind: type[CommandError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind("it failed [badly].", "Fix it.", log=("one [line]", "another"))
    error.add_note(f"logs: {Path('/logs')}")
    assert run(monkeypatch, error) == (2 if kind is BenchError else 1)
    output = capsys.readouterr()
    assert output.err == "  one [line]\n  another\nerror: it failed [badly]. Fix it.\nlogs: /logs\n"
    assert output.out == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("serve", ""),
        ("prepare", "interrupted; what was begun is not kept\n"),
        ("build", "interrupted; what was begun is not put in place\n"),
        ("bench", "interrupted; everything that was started is stopped\n"),
    ],
)
def test_ctrl_c_ends_a_command(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, KeyboardInterrupt(), name) == 130
    assert capsys.readouterr().err == words


def test_another_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run(monkeypatch, ZeroDivisionError())
