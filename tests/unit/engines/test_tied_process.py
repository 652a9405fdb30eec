# SPDX-License-Identifier: Apache-2.0
"""A process ends with another one while it blocks, and not after that."""

import subprocess  # nosec B404 # fixed program, no shell
import sys
import time
from collections.abc import Iterator

import pytest

from engines.dead_engine import EXIT_STATUS

WAIT = 30.0
# Blocks in the context for seconds, then goes on after it.
TIED = """
import sys, time
from engines.tied_process import tied_to
with tied_to(int(sys.argv[1])):
    print("inside", flush=True)
    time.sleep(float(sys.argv[2]))
print("outside", flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def other() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def tied(other: "subprocess.Popen[bytes]", inside: float, outside: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", TIED, str(other.pid), str(inside), str(outside)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_process_ends_with_the_other_one(other: "subprocess.Popen[bytes]") -> None:
    with tied(other, 60.0, 0.0) as process:
        assert process.stdout is not None and process.stdout.readline() == "inside\n"
        killed = time.monotonic()
        # It stays a zombie until this process asks for its end.
        other.kill()
        assert process.wait(WAIT) == EXIT_STATUS and time.monotonic() - killed < WAIT / 3


def test_a_process_goes_on_after_the_context(other: "subprocess.Popen[bytes]") -> None:
    with tied(other, 0.0, 0.5) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["inside\n", "outside\n"]
        other.kill()
        assert process.wait(WAIT) == 0


def test_a_process_that_has_ended_is_an_error(other: "subprocess.Popen[bytes]") -> None:
    other.kill()
    other.wait()
    with tied(other, 0.0, 0.0) as process:
        assert process.wait(WAIT) == 1
