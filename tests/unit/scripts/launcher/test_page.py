# SPDX-License-Identifier: Apache-2.0
"""The chat page as a part of the stack: its flags, command line, environment and warnings."""

from pathlib import Path

import pytest

from frontend.settings import Settings
from scripts.launcher import page
from scripts.launcher.options import parse_options
from scripts.launcher.ports import choose_ports
from scripts.setup import install_chromium


def test_the_launchers_flags(tmp_path: Path) -> None:
    options = parse_options(
        ["--ui", "--ui-port", "0", "--port", "0", *(f"--triton-{p}-port=0" for p in ("http", "grpc", "metrics"))]
    )
    assert options.ui and options.ui_host == "127.0.0.1"
    ports = choose_ports(options)
    assert ports.ui > 0 and len({ports.ui, ports.frontend, ports.http, ports.grpc, ports.metrics}) == 5
    plain = page.page_command("http://127.0.0.1:1", options, ports.ui, Settings.load([], {}))
    assert plain[1:] == ["-P", "-m", "chat_page", "--base-url", "http://127.0.0.1:1/v1", "--host", "127.0.0.1", "--port", str(ports.ui)]  # fmt: skip
    assert not parse_options([]).ui


def test_the_page_gets_no_keys() -> None:
    base = {
        "OPENAI_API_KEY": "mine",
        "TRITON_CHAT_API_KEY": "k",
        "HOME": "/h",
        "PYTHONPATH": "/p",
    }
    environment = page.page_environment(base)
    assert environment["HOME"] == "/h" and environment["PYTHONPATH"] == str(page.REPOSITORY)
    assert not {"OPENAI_API_KEY", "TRITON_CHAT_API_KEY"} & set(environment)


def test_an_open_page_causes_a_warning() -> None:
    opened = parse_options(["--ui", "--ui-host", "0.0.0.0"])
    assert len(page.page_warnings(opened, Settings.load([], {}))) == 2
    assert len(page.page_warnings(opened, Settings.load(["--api-key", "k"], {}))) == 1
    assert page.page_warnings(parse_options(["--ui"]), Settings.load([], {})) == []
    assert page.page_warnings(parse_options(["--ui-host", "0.0.0.0"]), Settings.load([], {})) == []


def test_a_missing_chromium_is_named(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert install_chromium.main() == 1
    assert "install it" in capsys.readouterr().err
    (tmp_path / "chromium").touch(mode=0o755)
    assert install_chromium.find_chromium() == str(tmp_path / "chromium")
    assert install_chromium.main() == 0
