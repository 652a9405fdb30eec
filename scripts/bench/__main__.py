# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench`, `triton-chat bench growth`, `triton-chat bench images`."""

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from scripts.bench import growth, images, run
from scripts.bench.errors import BenchError
from scripts.bench.options import parse
from scripts.launcher import LaunchError

# The exit status after Ctrl-C; SIGTERM is handled the same way.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the benchmarks; returns 1 if requests or a start failed, 2 for options that cannot be measured."""
    line = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if line[:1] == ["growth"]:
            return growth.measure(growth.parse(line[1:]))
        if line[:1] == ["images"]:
            return images.measure(images.parse(line[1:]))
        return run.measure(parse(line))
    except LaunchError as error:
        _complain(*error.log, str(error))
        return 1
    except BenchError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; everything that was started is stopped")
        return INTERRUPTED


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _complain(*lines: str) -> None:
    print(*lines[:-1], f"triton-chat bench: error: {lines[-1]}", sep="\n", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
