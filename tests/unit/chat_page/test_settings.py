# SPDX-License-Identifier: Apache-2.0
"""The options of `triton-chat ui`."""

import socket
from pathlib import Path

import pytest

from chat_page.__main__ import main
from chat_page.settings import PageSettings, parse_settings


def test_defaults_options_and_environment() -> None:
    assert parse_settings([], {}) == PageSettings()
    given = parse_settings(["--port", "1"], {"OPENAI_BASE_URL": "http://server/v1", "OPENAI_API_KEY": "k"})
    assert (given.base_url, given.api_key, given.port, given.host) == ("http://server/v1", "k", 1, "127.0.0.1")


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        ("http://a:1", "http://a:1/v1"),
        ("http://a:1/", "http://a:1/v1"),
        ("https://a/v1/", "https://a/v1"),
        ("https://a/openai/v1", "https://a/openai/v1"),
    ],
)
def test_the_address_with_or_without_v1(url: str, base_url: str) -> None:
    assert parse_settings(["--url", url], {}).base_url == base_url
    assert parse_settings([], {"OPENAI_BASE_URL": url}).base_url == base_url


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--tls-key", "k.pem"], "go together"),
        (["--url", "localhost:9997"], "localhost:9997 is not an http:// or https:// address"),
        (["--api-certificate", "nowhere.pem"], "nowhere.pem is not a file"),
        (["--port", "65536"], "65536 is not a port from 0 to 65535"),
        (["--port", "http"], "http is not a port from 0 to 65535"),
        (["--prot", "1"], "--prot"),
    ],
)
def test_wrong_lines_are_refused(line: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_settings(line, {})
    said = capsys.readouterr().err
    assert words in said and said.startswith("error: ") and said.count("\n") == 1


def test_files_that_are_no_certificate_end_the_page_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.pem").write_text("a")
    file = str(tmp_path / "a.pem")
    assert main(["--port", "0", "--tls-certificate", file, "--tls-key", file]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: --tls-certificate and --tls-key must be PEM files") and said.err.count("\n") == 1
    assert not said.out


def test_a_key_from_a_file_ends_without_its_newline(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_settings([], {"OPENAI_API_KEY": "k\n"}).api_key == "k"
    assert parse_settings([], {"OPENAI_API_KEY": "\n"}).api_key is None
    with pytest.raises(SystemExit):
        parse_settings([], {"OPENAI_API_KEY": "k\nl"})
    assert "OPENAI_API_KEY has characters that no key can have" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_cannot_be_had_is_named(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--host", host, "--port", str(port)]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"error: no page at {host}:{port}: ") and said.err.count("\n") == 1
    assert not said.out
