# SPDX-License-Identifier: Apache-2.0
"""Let torchvision's wheel for CUDA, the only one on PyPI for x86, import beside PyTorch's build for CPUs.

Most of transformers' image processors and all of its video processors use torchvision's transforms, which are plain
Python on top of PyTorch. Only operators for object detection are compiled, against CUDA. Without them the import fails
at two that it describes to PyTorch, and with it every model class of transformers.
"""

import importlib.util
from pathlib import Path

import torch

# The operators that `import torchvision` describes to PyTorch unasked, here without an implementation.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# Held, because PyTorch removes a library's operators together with the object.
_LIBRARIES: list[torch.library.Library] = []


def declare() -> None:
    """Declare the operators if the installed torchvision needs CUDA and PyTorch has none; else do nothing.

    PyTorch calls it in every process at the end of `import torch`: pyproject.toml registers it as a backend.
    """
    if torch.version.cuda is None and not _LIBRARIES and _built_for_cuda():
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call] # PyTorch's
        for operator in OPERATORS:
            library.define(operator)  # type: ignore[no-untyped-call] # PyTorch's
        _LIBRARIES.append(library)


def _built_for_cuda() -> bool:
    """Whether there is a torchvision built for CUDA, by its own version file: PyPI's metadata does not say."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and "+cu" in version.read_text(encoding="utf-8")
