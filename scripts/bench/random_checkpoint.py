# SPDX-License-Identifier: Apache-2.0
"""The command line of the scripts that write checkpoints with random weights."""

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path

# Writes a checkpoint: its folder, that of the tokenizer, and the size.
Write = Callable[[Path, Path, str], None]


def run(about: str | None, write: Write, sizes: Iterable[str], default: str) -> None:
    """Read folder, tokenizer and size from the command line, and write the checkpoint. about: for `--help`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--size", choices=sizes, default=default)
    given = parser.parse_args()
    write(given.folder, given.tokenizer, given.size)
