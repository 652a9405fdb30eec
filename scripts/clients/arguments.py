# SPDX-License-Identifier: Apache-2.0
"""Command-line arguments that the example clients share."""

import argparse
import base64
import mimetypes
import os
from pathlib import Path


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Create a parser with `--url`, `--model` and `--key`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9997/v1", help="the server (default: %(default)s)")
    parser.add_argument("--model", default="", help="a name from GET /v1/models (default: the server's own)")
    parser.add_argument(
        "--key", default=os.environ.get("OPENAI_API_KEY", "unused"), help="if the server requires a key"
    )
    return parser


def image_url(image: str) -> str:
    """Return a URL unchanged, and a local file as a `data:` URL with its bytes in base64."""
    if image.startswith(("http:", "https:", "file:", "data:")):
        return image
    kind = mimetypes.guess_type(image)[0] or "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
