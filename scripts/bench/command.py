# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench`, and `growth`, `images`, `answers` and `embeddings` after it."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType

from common.command_line import did_you_mean
from scripts.bench.errors import BenchError
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
        options = module.parse(line[1:])
        _check_serve_flags(options)
        return int(module.measure(options))
    options = parse(line)
    _check_serve_flags(options)
    from scripts.bench import run

    return run.measure(options)


def _check_serve_flags(options: argparse.Namespace) -> None:
    """Check the flags for `triton-chat serve`, before anything is imported or started for long. Raises LaunchError."""
    if not getattr(options, "serve_flags", ()):
        return
    from scripts.launcher.checks import check_options
    from scripts.launcher.errors import LaunchError
    from scripts.launcher.options import parse_options

    try:
        check_options(parse_options(options.serve_flags), os.environ)
    except LaunchError as error:
        # What neither knows may be a slip in one of the benchmark's own.
        unknown = (flag.partition("=")[0] for flag in options.serve_flags if flag.startswith("-"))
        for flag in (one for one in unknown if one in str(error)):
            if guess := did_you_mean(flag, options.own_flags, 0.7):
                raise BenchError(f"unknown option {flag}{guess}") from None
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
