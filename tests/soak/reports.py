# SPDX-License-Identifier: Apache-2.0
"""Print the lines and tables of a run."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.launcher import Stack
from tests.soak.gauges import memory

TOKENIZERS = Path(os.environ.get("TRITON_CHAT_TOKENIZERS", ".cache/tokenizers"))


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


Read = Callable[[Stack], Mapping[str, float]]


def memory_header(stack: Stack, what: str, read: Read = memory) -> None:
    """Begin a table of the memory of a stack's processes. what: names the first column."""
    say(f"| {what} | {' | '.join(read(stack))} |")
    say(f"|---{'|---:' * len(read(stack))}|")


def memory_row(stack: Stack, label: object, read: Read = memory) -> None:
    """Print one row of that table."""
    say(f"| {label} | {' | '.join(f'{size:.0f}' for size in read(stack).values())} |")
