# SPDX-License-Identifier: Apache-2.0
"""The vision tower's Triton kernel, interpreted and compiled without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
# Of the same Python as these tests' own environment.
TRITON = ROOT / ".cache" / "triton-venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def found(check: str, **environment: str) -> Any:
    """See triton_kernel.py; in a process of its own, as Triton would change what PyTorch does in this one."""
    path = os.pathsep.join(map(str, (ROOT, TRITON)))
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "triton_kernel.py", check],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_kernel_computes_attention():
    single, several, half = found("attended", TRITON_INTERPRET="1")
    assert all(difference < 1e-5 * largest for difference, largest in (single, several))
    assert half[0] < 2e-3 * half[1]


def test_only_what_was_measured_takes_the_kernel():
    assert found("supported") == [True, False, False, False, False, False, False]


def test_the_kernel_compiles_for_hopper(tmp_path):
    built = found("compiled", TRITON_CACHE_DIR=str(tmp_path))
    assert built["tensor_cores"]
    # Three blocks a multiprocessor, of 228 KiB and 1 KiB of each block's own.
    assert 3 * (built["shared"] + 1024) <= 228 * 1024
