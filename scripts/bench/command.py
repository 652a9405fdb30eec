# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench`, and `growth`, `images`, `answers` and `embeddings` after it."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

from scripts.bench.options import parse

# Each is a module with `parse` and `measure`, imported only when it is asked for.
OTHERS = ("growth", "images", "answers", "embeddings")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks; returns 1 if requests failed.

    Raises LaunchError if a start failed, BenchError for options that cannot be measured.
    """
    line = list(sys.argv[1:] if arguments is None else arguments)
    # SIGTERM stops all started processes, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    if line and line[0] in OTHERS:
        module = import_module(f"scripts.bench.{line[0]}")
        return int(module.measure(module.parse(line[1:])))
    options = parse(line)
    from scripts.bench import run

    return run.measure(options)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
