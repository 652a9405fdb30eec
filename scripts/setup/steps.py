# SPDX-License-Identifier: Apache-2.0
"""The lines of the steps before a start; those of the first two of `make serve` are in the Makefile."""

import os

from rich.console import Console
from rich.markup import escape

TRITONSERVER, _MODEL, _ALL = 3, 4, 4
# Set by the Makefile: "steps", or "first" if steps 1 or 2 were taken just now.
_VARIABLE = "MAKE_SERVE_STEPS"


def announce(console: Console, step: int, what: str) -> None:
    """Print the line of a step that begins now; numbered if make runs the command."""
    number = f" {step}/{_ALL}" if os.environ.get(_VARIABLE) else ""
    console.print(f"setup{number}: {escape(what)}", soft_wrap=True)


def announce_model(console: Console, what: str, *, needed: bool) -> None:
    """Print the line of the model's step, if there is something to do or the lines of earlier steps wait for the last.

    what: the model, and its size if it is known.
    """
    if needed or os.environ.get(_VARIABLE) == "first":
        announce(console, _MODEL, f"the model {what}" if needed else f"the model {what}, which is here already")
