# SPDX-License-Identifier: Apache-2.0
"""Check that the installed packages fit together, after `make setup` has installed them and in Docker builds."""

import importlib
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console

# Versions that serve next to an engine that pins older ones, as TensorRT-LLM 1.2 does. Splitting and preparing
# checkpoints needs those of pyproject.toml.
SERVES_WITH = {"huggingface_hub": SpecifierSet(">=0.34"), "transformers": SpecifierSet(">=4.57")}

_TORCH = (
    "torch was installed but does not import: {reason}\n"
    "The package index in use probably serves CUDA builds of torch, whose CUDA libraries are left out here. Set "
    "PIP_EXTRA_INDEX_URL to the CPU index that PyTorch's installation page names, remove .venv and `make setup` again."
)


_COMPANION = (
    "{name} does not fit the torch that is installed ({reason}), and transformers or vLLM fails, as it imports it if "
    "it is installed. {advice}"
)
_ADVICE = {
    "torchvision": "Only models with images need it: `make setup` in a fresh .venv, or `pip uninstall torchvision`.",
    "torchaudio": "Nothing here needs it: `pip uninstall torchaudio`.",
    "torchcodec": "Nothing here needs it, videos are decoded by PyAV: `pip uninstall torchcodec`.",
}


def numpy_problem(numpy_version: str | None = None) -> str | None:
    """Check that numpy (default: the installed one) runs in the embedded tritonserver; returns None or the problem."""
    found = numpy_version or version("numpy")
    if int(found.split(".")[0]) < 2:
        return None
    return (
        f"numpy {found} is installed, but the Python stub of the embedded tritonserver was built before numpy 2: "
        "integer outputs would arrive empty and string tensors would end it. Fix it: `make setup` in a fresh .venv, "
        "or `pip install --no-deps numpy==1.26.4`."
    )


def torch_problem() -> str | None:
    """Check that torch, and packages built against it, can be imported; returns None or the problem."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return _TORCH.format(reason=error)
    # PyTorch has called it, unless these packages are checked before the project itself is installed.
    importlib.import_module("common.torchvision_operators").declare()
    for name, advice in _ADVICE.items():
        try:
            if find_spec(name) is not None:
                importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            return _COMPANION.format(name=name, reason=str(error).partition("\n")[0], advice=advice)
    return None


def declared_problems(installed: Callable[[str], str] = version) -> list[str]:
    """Check the dependencies in pyproject.toml that serving needs; returns those that are missing or too old.

    Nothing is checked if this project's own metadata is not installed, as in a bare clone.
    """
    found: list[str] = []
    try:
        lines = requires("triton-chat") or ()
    except PackageNotFoundError:
        return found
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        wanted = SERVES_WITH.get(requirement.name, requirement.specifier)
        try:
            present = installed(requirement.name)
        except PackageNotFoundError:
            found.append(f"{requirement.name}{wanted} is missing.")
            continue
        if not wanted.contains(present, prereleases=True):
            found.append(
                f"{requirement.name} {present} is installed, but this project needs {requirement.name}{wanted}."
            )
    return found


def main() -> int:
    """Print the problems; returns 1 if there are any. With --declared, only check what serving needs."""
    console = Console(stderr=True)
    asked = declared_problems() if sys.argv[1:] == ["--declared"] else (numpy_problem(), torch_problem())
    found = [problem for problem in asked if problem]
    for problem in found:
        console.print(f"[red]error:[/] {problem}", soft_wrap=True, highlight=False)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
