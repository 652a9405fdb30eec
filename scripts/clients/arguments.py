# SPDX-License-Identifier: Apache-2.0
"""The arguments that the clients beside this file share."""

import argparse
import base64
import mimetypes
import os
from pathlib import Path


def argument_parser(description: str) -> argparse.ArgumentParser:
    """A parser with `--url`, `--model` and `--key`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:9997/v1", help="the server (default: %(default)s)")
    parser.add_argument("--model", default="", help="a name of GET /v1/models (default: the server's own)")
    parser.add_argument("--key", default=os.environ.get("OPENAI_API_KEY", "unused"), help="where the server wants one")
    return parser


def image_url(image: str) -> str:
    """A URL as it is; a local file as a `data:` URL, its bytes in base64."""
    if image.startswith(("http:", "https:", "file:", "data:")):
        return image
    kind = mimetypes.guess_type(image)[0] or "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
