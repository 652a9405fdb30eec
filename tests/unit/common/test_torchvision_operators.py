# SPDX-License-Identifier: Apache-2.0
"""torchvision built for CUDA imports beside PyTorch's CPU build, and operators are declared for no other."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from common import torchvision_operators


def declared(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, cuda: str | None = None) -> list[str]:
    """The operators that are declared beside a torchvision of some version."""
    found: list[str] = []

    class Recorder:
        def __init__(self, *namespace: str) -> None:
            assert namespace == ("torchvision", "DEF")

        def define(self, schema: str) -> None:
            found.append(schema.partition("(")[0])

    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    if version is not None:
        (package / "version.py").write_text(f"__version__ = '{version}'\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.setattr(torchvision_operators, "_LIBRARIES", [])
    monkeypatch.setattr(torch.library, "Library", Recorder)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    torchvision_operators.declare()
    torchvision_operators.declare()
    return found


def test_operators_are_declared_once_for_a_build_for_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert declared(tmp_path, monkeypatch, "0.28.0+cu130") == ["nms", "qnms"]


@pytest.mark.parametrize("version", ["0.28.0+cpu", "0.28.0", None])
def test_a_build_for_cpus_declares_its_own(
    version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert declared(tmp_path, monkeypatch, version) == []


def test_a_torch_for_cuda_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert declared(tmp_path, monkeypatch, "0.28.0+cu130", cuda="13.0") == []


def test_no_torchvision_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(torchvision_operators, "_LIBRARIES", [])
    torchvision_operators.declare()
    assert torchvision_operators._LIBRARIES == []


def test_pytorch_calls_it() -> None:
    (found,) = [one for one in entry_points(group="torch.backends") if one.name == "triton_chat_torchvision"]
    assert found.load() is torchvision_operators.declare


def test_transforms_and_processors_work_in_a_new_process(tmp_path: Path) -> None:
    code = """
import torch
from transformers import Qwen2ForCausalLM, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from torchvision.transforms.v2 import functional

small = functional.resize(torch.full((3, 8, 8), 7, dtype=torch.uint8), [4, 4], antialias=True)
assert small.shape == (3, 4, 4) and (small == 7).all()
print("fine")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
