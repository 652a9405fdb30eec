# SPDX-License-Identifier: Apache-2.0
"""Command-line arguments that the example clients share."""

import argparse
import base64
import mimetypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

# Packages whose errors are the server's or the network's.
_CLIENTS = ("grpc", "httpcore", "httpx", "openai", "tritonclient")


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Create a parser with `--url`, `--model` and `--key`."""
    print_errors_in_one_line()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9997/v1", help="the server (default: %(default)s)")
    parser.add_argument("--model", default="", help="a name from GET /v1/models (default: the server's own)")
    parser.add_argument(
        "--key", default=os.environ.get("OPENAI_API_KEY", "unused"), help="if the server requires a key"
    )
    return parser


def triton_parser(description: str, url: str) -> argparse.ArgumentParser:
    """Create a parser with `--url` for one of Triton's own endpoints, and the question."""
    print_errors_in_one_line()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default=url, help="Triton's endpoint (default: %(default)s)")
    parser.add_argument("question")
    return parser


def print_errors_in_one_line() -> None:
    """Let an error of the server, of the network or of a file end the program with one line."""
    sys.excepthook = _print_error


def _print_error(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        return
    if kind.__module__.partition(".")[0] not in _CLIENTS and not isinstance(error, OSError):
        sys.__excepthook__(kind, error, traceback)
        return
    # OpenAI's client has the server's message in the body, and a request that failed to connect has only its address.
    body, request = getattr(error, "body", None), getattr(error, "_request", getattr(error, "request", None))
    if isinstance(error, OSError) and error.filename:
        error = OSError(f"{error.filename}: {error.strerror}")
    text = error.details() if hasattr(error, "details") else error
    message = str(body["message"] if isinstance(body, dict) and "message" in body else text).strip()
    where = f" ({request.url})" if request is not None and getattr(error, "response", None) is None else ""
    print(f"error: {' '.join(message.split())}{where}", file=sys.stderr)


def print_streamed(answer: Iterable[Any]) -> str:
    """Print a streamed answer while it is generated, its reasoning to standard error; return the answer.

    answer: chunks of OpenAI's client; the usage is printed if it was requested.
    """
    text = usage = ""
    for chunk in answer:
        for choice in chunk.choices:
            print(getattr(choice.delta, "reasoning_content", None) or "", end="", file=sys.stderr, flush=True)
            print(choice.delta.content or "", end="", flush=True)
            text += choice.delta.content or ""
        if chunk.usage:
            usage = f"\n({chunk.usage.prompt_tokens} tokens read, {chunk.usage.completion_tokens} written)"
    print(usage)
    return text


def image_url(image: str) -> str:
    """Return a URL unchanged, and a local file as a `data:` URL with its bytes in base64."""
    if image.startswith(("http:", "https:", "file:", "data:")):
        return image
    kind = mimetypes.guess_type(image)[0] or "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
