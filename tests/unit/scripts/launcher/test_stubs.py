# SPDX-License-Identifier: Apache-2.0
"""Processes of models that tritonserver waits for though they live are killed, after a while."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.processes import STUB_NAME, awaited_children, kill
from scripts.launcher.stubs import StuckStubs
from tests.support.waiting import wait_until

# Starts a process of a model; after a line of input it waits for the end of that process.
PARENT = (
    "import subprocess, sys; child = subprocess.Popen(sys.argv[1:], stdin=-1); print(child.pid, flush=True); "
    "sys.stdin.readline(); child.wait(); print('over', flush=True); sys.stdin.readline()"
)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    stub, model = tmp_path / STUB_NAME, tmp_path / "vit" / "1" / "model.py"
    stub.symlink_to("/bin/bash")
    model.parent.mkdir(parents=True)
    model.write_text("read never")
    command = [sys.executable, "-c", PARENT, str(stub), str(model)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_one_that_is_waited_for_is_killed_after_a_while(parent: subprocess.Popen[str]) -> None:
    """Not one that only starts slowly, and not at once: a process may take a moment to end."""
    assert parent.stdin is not None and parent.stdout is not None
    now = 0.0
    stuck, child = StuckStubs(lambda: now), int(parent.stdout.readline())
    for now in (1.0, 20.0, 40.0):  # noqa: B007 # read by the clock
        assert stuck.end(parent.pid) == []
    parent.stdin.write("\n")
    parent.stdin.flush()
    wait_until(lambda: awaited_children(parent.pid) == {child}, "the parent waits")
    try:
        for now in (50.0, 61.0):  # noqa: B007 # as above
            assert stuck.end(parent.pid) == []
        now = 63.0
        assert stuck.end(parent.pid) == ["vit"]
        assert parent.stdout.readline() == "over\n"
    finally:
        kill(child)
    now = 90.0
    assert stuck.end(parent.pid) == []
