# SPDX-License-Identifier: Apache-2.0
"""A count that several processes keep together."""

import os
import subprocess
import sys

from engines.shared_count import SharedCount

OTHER = "import sys; from engines.shared_count import SharedCount; SharedCount(3, 2, sys.argv[1]).set(5)"


def test_processes_add_up() -> None:
    files = os.listdir("/proc/self/fd")
    first = SharedCount(3, 0)
    second = SharedCount(3, 1, first.path)
    assert first.total() == 0
    first.set(2**40)
    second.set(7)
    subprocess.run([sys.executable, "-c", OTHER, first.path], check=True)
    assert first.total() == second.total() == 2**40 + 7 + 5
    second.close()
    assert first.total() == 2**40 + 5
    first.close()
    assert len(os.listdir("/proc/self/fd")) == len(files)
