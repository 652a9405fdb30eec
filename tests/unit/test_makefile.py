# SPDX-License-Identifier: Apache-2.0
"""What the Makefile chooses by itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize(
    ("free_kb", "given", "processes"),
    [(13_999_999, (), "1"), (14_000_000, (), "2"), (None, (), "2"), (1, ("PROCESSES=3",), "3")],
    ids=["little memory", "enough", "no such file", "chosen"],
)
def test_processes_of_the_integration_tests(
    tmp_path: Path, free_kb: int | None, given: tuple[str, ...], processes: str
) -> None:
    meminfo = tmp_path / "meminfo"
    if free_kb is not None:
        meminfo.write_text(f"MemTotal:       24000000 kB\nMemAvailable:   {free_kb} kB\n")
    (tmp_path / "print.mk").write_text("print:\n\t@echo $(PROCESSES)\n")
    files = ["-f", str(ROOT / "Makefile"), "-f", str(tmp_path / "print.mk")]
    line = [
        "make",
        "-C",
        str(ROOT),
        *files,
        "--no-print-directory",
        "DEVICE=cpu",
        f"MEMINFO={meminfo}",
        *given,
        "print",
    ]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (f"{processes}\n", 0), done.stderr
