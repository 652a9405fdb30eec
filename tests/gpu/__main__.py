# SPDX-License-Identifier: Apache-2.0
"""Run the tests of the GPU build on this machine's NVIDIA GPUs, and write a table of the results.

Usage: python -m tests.gpu [NAME ...]; without a name all groups run. Each is a pytest of its own, because an engine takes
most of a GPU's memory.
"""

import argparse
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from scripts.bench.machine import gpus, versions

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / ".cache" / "test-gpu.md"
_INTEGRATION = "tests/integration"
# name -> (what it shows, the tests)
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "answers": (
        "chat, streams, tools, log-probabilities, cancellation",
        (f"{_INTEGRATION}/test_chat.py", f"{_INTEGRATION}/test_cancellation.py"),
    ),
    "guides": ("guided decoding", (f"{_INTEGRATION}/test_guides.py",)),
    "greedy": ("greedy tokens of each family equal those of transformers", (f"{_INTEGRATION}/test_greedy.py",)),
    "adapters": ("tokens with LoRA adapters equal those of PEFT", ("tests/gpu/test_adapters.py",)),
    "images": ("images through `vit`, tokens equal those of transformers", (f"{_INTEGRATION}/test_images.py",)),
    "demo": ("the demo vision model's answers", (f"{_INTEGRATION}/test_demo_vlm.py",)),
    "embeddings": (
        "embeddings equal those of transformers, cancellation",
        (f"{_INTEGRATION}/test_embeddings.py",),
    ),
    "faults": ("the engine's process killed under load", (f"{_INTEGRATION}/test_faults.py::test_the_engine_core",)),
    "two-gpus": ("tensor-parallel answers equal those of one GPU", ("tests/gpu/test_two_gpus.py",)),
}


@dataclass(frozen=True, slots=True)
class Result:
    """Counts of one group, and its time in seconds."""

    passed: int
    failed: int
    skipped: int
    seconds: float

    @property
    def row(self) -> str:
        """The cells after the group's description."""
        return f"{self.passed} | {self.failed} | {self.skipped} | {self.seconds:.0f}"


def read_result(report: Path) -> Result:
    """Read pytest's report in JUnit's XML format."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    tests, failed, errors, skipped = (int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped"))
    return Result(tests - failed - errors - skipped, failed + errors, skipped, float(suite.attrib["time"]))


def run_group(name: str, folder: Path) -> Result | None:
    """Run one group; None if pytest wrote no report."""
    report = folder / f"{name}.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *GROUPS[name][1]], cwd=ROOT, check=False
    )
    return read_result(report) if report.is_file() else None


def machine() -> str:
    """Name cards, drivers and versions."""
    found = versions(None)
    named = [f"{name} {found[name]}" for name in ("torch", "vllm", "python", "commit") if name in found]
    return ", ".join([*gpus(), f"CUDA {torch.version.cuda}", *named])


def main() -> int:
    """Run the groups; returns 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(GROUPS))
    names = parser.parse_args().names or list(GROUPS)
    if unknown := [name for name in names if name not in GROUPS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    if not torch.cuda.is_available():
        print("test-gpu: PyTorch sees no GPU")
        return 1
    lines = [machine(), "", "| | passed | failed | skipped | seconds |", "|---|---:|---:|---:|---:|"]
    good = True
    with TemporaryDirectory() as folder:
        for name in names:
            result = run_group(name, Path(folder))
            good = good and result is not None and result.failed == 0
            lines.append(f"| {GROUPS[name][0]} | {result.row if result else 'did not start | | |'} |")
    text = "\n".join(lines)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
