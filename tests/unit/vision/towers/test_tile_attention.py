# SPDX-License-Identifier: Apache-2.0
"""The vision tower's Triton kernel, interpreted and compiled without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
# For the same Python as that of these tests.
TRITON = ROOT / ".cache" / "triton-venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"


def found(check: str, **environment: str) -> Any:
    """Run a check of triton_kernel.py, in a process of its own because Triton changes PyTorch's behaviour."""
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


def test_only_measured_shapes_use_the_kernel():
    assert found("supported") == [True, False, False, False, False, False, False]


def test_the_kernel_compiles_for_hopper(tmp_path):
    built = found("compiled", TRITON_CACHE_DIR=str(tmp_path))
    assert built["tensor_cores"]
    # Three blocks fit on a multiprocessor with 228 KiB; each has 1 KiB of its own.
    assert 3 * (built["shared"] + 1024) <= 228 * 1024
