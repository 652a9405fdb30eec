# SPDX-License-Identifier: Apache-2.0
"""The page's options."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

DEFAULT_BASE_URL = "http://127.0.0.1:9997/v1"
DEFAULT_PORT = 7860


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """The settings of the page.

    base_url: of the endpoint, with /v1. api_key: used for every visitor; None lets each one enter their own.
    api_certificate: PEM file with the only certificate that is accepted from the endpoint, under any host name.
    tls_certificate, tls_key: PEM files for the page's own TLS.
    """

    base_url: str = DEFAULT_BASE_URL
    api_key: str | None = None
    api_certificate: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls_certificate: Path | None = None
    tls_key: Path | None = None


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, without its usage."""

    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ").replace("--url/--base-url", "--url")
        self.exit(2, f"error: {text}. `{self.prog} --help` lists the options.\n")


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> PageSettings:
    """Read the command line. The key is only read from the environment, because all users can list command lines."""
    parser = _Parser(
        prog="triton-chat ui",
        description="A chat page in the browser for a server that runs: this one, or any other with OpenAI's API.",
        epilog="OPENAI_API_KEY is used for every visitor; without it the page has a field for a key.\n\n"
        "example: triton-chat ui --url http://127.0.0.1:9997",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    base_url = environment.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    about = "the server, with or without /v1 (default: OPENAI_BASE_URL, here %(default)s)"
    add("--url", "--base-url", dest="base_url", type=_base_url, default=base_url, metavar="URL", help=about)
    add("--api-certificate", type=Path, metavar="PEM", help="the one certificate that the server must show")
    add("--host", default="127.0.0.1", help="address of the page (default %(default)s)")
    add("--port", type=_port, default=DEFAULT_PORT, help="port of the page; 0 picks one (default %(default)s)")
    add("--tls-certificate", type=Path, metavar="PEM", help="serve the page over TLS with this certificate")
    add("--tls-key", type=Path, metavar="PEM", help="the certificate's key")
    values = vars(parser.parse_args(arguments))
    if (values["tls_certificate"] is None) != (values["tls_key"] is None):
        parser.error("--tls-certificate and --tls-key go together")
    for name in ("api_certificate", "tls_certificate", "tls_key"):
        if values[name] is not None and not values[name].is_file():
            parser.error(f"--{name.replace('_', '-')}: {values[name]} is not a file")
    # Keys that are read from files end with a newline.
    api_key = environment.get("OPENAI_API_KEY", "").strip()
    if not api_key.isprintable():
        parser.error("OPENAI_API_KEY has characters that no key can have")
    return PageSettings(**values, api_key=api_key or None)


def _port(text: str) -> int:
    """A port, or 0. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port from 0 to 65535")
    return int(text)


def _base_url(text: str) -> str:
    """The URL without a slash at its end, with /v1 if it has no path. Raises ArgumentTypeError if it is no URL."""
    address = urlsplit(text)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise argparse.ArgumentTypeError(f"{text} is not an http:// or https:// address")
    return text.rstrip("/") + ("" if address.path.strip("/") else "/v1")
