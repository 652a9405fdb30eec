# SPDX-License-Identifier: Apache-2.0
"""`triton-chat split`: the language model and the vision part of a checkpoint, into a folder of one's choice."""

import argparse
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from common.command_line import Parser, checked
from scripts.split.config import read_config

# Those of scripts/split/plan.py, which imports torch.
DTYPES = ("bfloat16", "float16", "float32")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Split a checkpoint; returns 0, or 130 or 143 after a signal. Raises SplitError."""
    options = _parse(arguments)
    read_config(options.checkpoint.expanduser().resolve())
    console = Console(stderr=True, highlight=False)
    caught = _interrupt_on_signals()
    try:
        # After the options are read: it imports torch.
        from scripts.split.splitter import SHARD_BYTES, split_checkpoint

        target = split_checkpoint(
            options.checkpoint,
            options.output,
            dtype=options.dtype,
            shard_bytes=options.shard_size or SHARD_BYTES,
            force=options.force,
            console=console,
        )
    except BaseException:
        # Native code that is interrupted may raise an error of its own instead of KeyboardInterrupt.
        if caught:
            console.print("interrupted; nothing was written")
            return 128 + caught[0]
        raise
    console.print(f"[green]done:[/] {escape(str(target))}", soft_wrap=True)
    return 0


def _interrupt_on_signals() -> list[int]:
    """Make SIGINT and SIGTERM raise KeyboardInterrupt; returns a list that receives their numbers."""
    caught: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return caught


def size(text: str) -> int:
    """Parse a size such as 4GB (decimal), 4GiB (binary) or 4000000000 to bytes; raises ValueError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"must be a size such as 4GB or 500MiB, not '{text}'")
    number, unit, binary = match.groups()
    count = int(float(number) * (1024 if binary else 1000) ** " KMGT".index(unit.upper() or " "))
    if count < 1:
        raise ValueError(f"'{text}' is below one byte")
    return count


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="triton-chat split",
        description="Split a vision-language checkpoint into a causal-LM checkpoint and its vision part (vision/).",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: triton-chat split /models/InternVL2_5-78B /models/internvl2_5-78b-split",
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the published checkpoint")
    parser.add_argument("output", type=Path, help="folder to write")
    parser.add_argument("--dtype", choices=DTYPES, help="of the written weights (default: as stored)")
    parser.add_argument(
        "--shard-size",
        type=checked(size),
        metavar="SIZE",
        help="largest weight file (default: 4GB)",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier split at the output")
    return parser.parse_args(arguments)
