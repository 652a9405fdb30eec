# SPDX-License-Identifier: Apache-2.0
"""`triton-chat prepare`: fetch tritonserver, and download, convert and split a model, before `serve` needs them."""

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from common.command_line import Parser
from scripts.launcher.environment import CONTAINER_BINARY
from scripts.launcher.model import resolve_model
from scripts.launcher.options import DEFAULT_MODEL, DEMO_MODEL
from scripts.setup import fetch_tritonserver

_ABOUT = "Fetch, convert and split a model once, so that `serve` starts at once; prints the folder that is served."
_EXAMPLE = "example: triton-chat prepare OpenGVLab/InternVL2_5-8B"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the model of the line; progress goes to standard error, the model's folder to standard output."""
    options = _parse(arguments)
    console = Console(stderr=True, highlight=False)
    # A Triton container has its own tritonserver.
    if not options.no_server and not CONTAINER_BINARY.is_file():
        fetch_tritonserver.fetch()
    model = resolve_model(options.model, console, os.environ.get("TRITON_CHAT_VISION"))
    print(model.checkpoint.path)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="triton-chat prepare", description=_ABOUT, epilog=_EXAMPLE)
    parser.add_argument(
        "model",
        nargs="?",
        default=DEFAULT_MODEL,
        metavar="MODEL",
        help=f"{DEFAULT_MODEL} (default), {DEMO_MODEL}, a checkpoint folder or a hub id",
    )
    parser.add_argument(
        "--no-server", action="store_true", help="leave the embedded tritonserver (55 MB) out: another one will run"
    )
    return parser.parse_args(sys.argv[1:] if arguments is None else arguments)
