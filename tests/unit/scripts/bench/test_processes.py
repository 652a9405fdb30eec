# SPDX-License-Identifier: Apache-2.0
"""CPU time and memory of processes, read from /proc."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.processes import command_line
from scripts.bench.processes import memory, snapshot, spent

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def process(
    proc: Path, pid: int, parent: int, line: str, *, cpu_s: float = 0.0, pages: int = 0, started: int = 5
) -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    fields = ["0"] * 50
    fields[0], fields[1], fields[19], fields[21] = "S", str(parent), str(started), str(pages)
    fields[11], fields[12] = str(int(cpu_s * TICKS * 0.75)), str(int(cpu_s * TICKS * 0.25))
    (folder / "stat").write_text(f"{pid} (a (strange) name) {' '.join(fields)}\n")
    (folder / "cmdline").write_bytes(line.replace(" ", "\0").encode())


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a stack, another process, and an entry that is not a process."""
    (tmp_path / "meminfo").write_text("")
    stub = "/t/triton_python_backend_stub /m/model_repository/{}/1/model.py x"
    process(tmp_path, 10, 1, "tritonserver", cpu_s=8, pages=3)
    process(tmp_path, 11, 10, stub.format("preprocessing"), cpu_s=4, pages=1)
    process(tmp_path, 12, 10, stub.format("preprocessing"), cpu_s=8, pages=1)
    process(tmp_path, 13, 10, stub.format("tensorrt_llm"), cpu_s=4)
    process(tmp_path, 14, 13, "VLLM::EngineCore", cpu_s=4)
    process(tmp_path, 15, 14, "VLLM::Worker_TP0", cpu_s=4)
    process(tmp_path, 16, 13, "python -c from multiprocessing.resource_tracker import main", cpu_s=0)
    process(tmp_path, 17, 13, "sh", cpu_s=4)
    process(tmp_path, 20, 1, "python -m frontend", cpu_s=4, pages=2)
    process(tmp_path, 21, 20, "VLLM::ApiServer_1", cpu_s=4)
    process(tmp_path, 30, 1, "python -m vllm.entrypoints.cli.main serve m", cpu_s=4)
    process(tmp_path, 31, 30, "VLLM::APIServer_0", cpu_s=4)
    process(tmp_path, 32, 30, "VLLM::APIServer_1", cpu_s=4)
    process(tmp_path, 33, 30, "/site-packages/vllm/vllm-rs frontend --listen-fd 3", cpu_s=8)
    process(tmp_path, 99, 1, "somebody's", cpu_s=40)
    return tmp_path


ROOTS = {"tritonserver": 10, "frontend-1": 20, "gone": 77}


def test_processes_are_grouped_by_role(proc: Path) -> None:
    taken = snapshot(ROOTS, proc)
    assert spent({}, taken) == {
        "tritonserver": 12.0,  # with the shell below a stub
        "stub preprocessing": 12.0,
        "stub tensorrt_llm": 4.0,
        "engine core": 4.0,
        "engine worker": 4.0,
        "resource tracker": 0.0,
        "frontend-1": 4.0,
        "API server": 4.0,
    }
    sizes = memory(taken)
    assert (sizes["tritonserver"], sizes["stub preprocessing"], sizes["frontend-1"]) == (3 * PAGE, 2 * PAGE, 2 * PAGE)


def test_all_front_ends_of_vllm_count(proc: Path) -> None:
    assert spent({}, snapshot({"API server": 30}, proc)) == {"API server": 12.0, "Rust front end": 8.0}


def test_only_what_was_spent_between_counts(proc: Path) -> None:
    before = snapshot(ROOTS, proc)
    process(proc, 20, 1, "python -m frontend", cpu_s=6)
    # The same id, another process, which began at 0.
    process(proc, 14, 13, "VLLM::EngineCore", cpu_s=1, started=9)
    found = spent(before, snapshot(ROOTS, proc))
    assert (found["frontend-1"], found["engine core"], found["engine worker"]) == (2.0, 1.0, 0.0)


def test_a_real_child_that_works() -> None:
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        before = snapshot({"test": os.getpid()})
        end = time.monotonic() + 60
        while (worked := spent(before, snapshot({"worker": child.pid})).get("worker", 0.0)) < 0.2:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert worked < 30
        assert command_line(child.pid) == [sys.executable, "-c", "while True: pass"]
    finally:
        child.kill()
        child.wait()
    assert snapshot({"worker": child.pid}) == {}
    assert command_line(child.pid) == []
