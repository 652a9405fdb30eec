# SPDX-License-Identifier: Apache-2.0
"""Find NVIDIA's tools, their versions and the GPUs of this machine."""

import json
import shutil
import subprocess  # nosec B404 # fixed programs, no shell
from dataclasses import dataclass
from pathlib import Path

from scripts.shared.errors import EngineError

# The release that the commands are written for, and the image that has it.
TENSORRT_LLM, IMAGE = "1.2.1", "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
# TensorRT-LLM's examples in Triton's images and in TensorRT-LLM's own.
EXAMPLES = (Path("/app/examples"), Path("/app/tensorrt_llm/examples"))
PYTHON, BUILD = "python3", "trtllm-build"
QUANTIZE = Path("quantization/quantize.py")
_TIMEOUT_S = 60
_PACKAGES = ("tensorrt_llm", "tensorrt", "nvidia-modelopt")
_VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader,nounits")
_MEMORY_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. compute: capability such as (9, 0). memory: bytes."""

    name: str
    compute: tuple[int, int]
    memory: int

    @property
    def capability(self) -> str:
        """The compute capability as text, such as "9.0"."""
        return ".".join(map(str, self.compute))


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The tools of this machine. versions: of the packages that `python3` has. gpus: empty without GPU or driver."""

    examples: Path
    versions: dict[str, str]
    gpus: tuple[Gpu, ...]

    @classmethod
    def find(cls, examples: Path | None = None) -> "Toolchain":
        """Look for the tools, which takes about a second; missing ones are no error here but in `checks`."""
        found = examples or next((folder for folder in EXAMPLES if folder.is_dir()), EXAMPLES[0])
        return cls(found, package_versions(), find_gpus())

    def converter(self, family: str) -> Path:
        """The path of convert_checkpoint.py in a family's examples."""
        return self.examples / "models" / "core" / family / "convert_checkpoint.py"

    def missing(self, scripts: list[Path]) -> list[str]:
        """Those of the scripts and programs that do not exist here."""
        programs = [name for name in (PYTHON, BUILD) if shutil.which(name) is None]
        return programs + [str(script) for script in scripts if not script.is_file()]


def package_versions() -> dict[str, str]:
    """Versions by name of TensorRT-LLM's packages in the `python3` that runs the tools."""
    answer = _run((PYTHON, "-c", _VERSIONS, *_PACKAGES))
    return dict(json.loads(answer)) if answer else {}


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that nvidia-smi lists."""
    rows = [[cell.strip() for cell in line.split(",")] for line in _run(_QUERY).splitlines()]
    try:
        return tuple(Gpu(name, _capability(compute), int(memory) * 2**20) for name, compute, memory in rows)
    except ValueError as error:
        raise EngineError(f"nvidia-smi answers otherwise than asked: {rows}.") from error


def gpu_memory() -> dict[str, tuple[int, int]]:
    """Free and total bytes of each GPU, by its number and by its UUID; empty without nvidia-smi."""
    rows = [[cell.strip() for cell in line.split(",")] for line in _run(_MEMORY_QUERY).splitlines()]
    return {
        name: (int(free) * 2**20, int(total) * 2**20)
        for number, uuid, free, total in rows
        if free.isdigit() and total.isdigit()
        for name in (number, uuid)
    }


def _capability(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _run(command: tuple[str, ...]) -> str:
    """Run a program; returns its output, empty if it is missing or fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)  # nosec B603 # fixed programs, no shell
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""
