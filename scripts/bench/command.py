# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench`, and `growth`, `images`, `answers` and `embeddings` after it."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from scripts.bench import answers, embeddings, growth, images, run
from scripts.bench.options import parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks; returns 1 if requests failed.

    Raises LaunchError if a start failed, BenchError for options that cannot be measured.
    """
    line = list(sys.argv[1:] if arguments is None else arguments)
    # SIGTERM stops all started processes, as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    if line[:1] == ["growth"]:
        return growth.measure(growth.parse(line[1:]))
    if line[:1] == ["images"]:
        return images.measure(images.parse(line[1:]))
    if line[:1] == ["answers"]:
        return answers.measure(answers.parse(line[1:]))
    if line[:1] == ["embeddings"]:
        return embeddings.measure(embeddings.parse(line[1:]))
    return run.measure(parse(line))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
