# SPDX-License-Identifier: Apache-2.0
"""The versions that a server tells of itself."""

from pathlib import Path

import pytest

from common import versions
from common.versions import Versions, package_version

SMI = """#!/bin/sh
echo "$@" >> "{folder}/asked"
echo "NVIDIA H100 80GB HBM3, 580.95.05"
echo "NVIDIA H100 80GB HBM3, 580.95.05"
"""


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs and a PyTorch for them; returns the file of what nvidia-smi was asked."""
    program = tmp_path / "nvidia-smi"
    program.write_text(SMI.format(folder=tmp_path))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(versions, "cuda_version", lambda: "12.9")
    return tmp_path / "asked"


def test_an_engine_on_gpus(nvidia_smi: Path) -> None:
    found = Versions.find("scripted:Engine", {"CUDA_VISIBLE_DEVICES": "0, 1"})
    assert found == Versions("scripted:Engine", None, "12.9", "2x NVIDIA H100 80GB HBM3", "580.95.05")
    assert str(found) == "engine scripted:Engine, CUDA 12.9, GPU 2x NVIDIA H100 80GB HBM3 (driver 580.95.05)"
    assert nvidia_smi.read_text().endswith("--id=0,1\n")


@pytest.mark.parametrize("shown", ["", "-1"])
def test_hidden_gpus_are_not_told(nvidia_smi: Path, shown: str) -> None:
    assert Versions.find("vllm", {"CUDA_VISIBLE_DEVICES": shown}).gpu is None
    assert not nvidia_smi.exists()


def test_a_pytorch_for_cpus_uses_no_gpu(nvidia_smi: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "cuda_version", lambda: None)
    found = Versions.find("vllm", {})
    assert (found.cuda, found.gpu, found.driver) == (None, None, None)
    assert not nvidia_smi.exists()


def test_a_driver_that_does_not_answer(nvidia_smi: Path) -> None:
    nvidia_smi.with_name("nvidia-smi").write_text("#!/bin/sh\necho 'No devices, none were found'\nexit 6\n")
    assert Versions.find("vllm", {}).gpu is None


def test_the_version_of_cuda_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    assert versions.cuda_version() == torch.version.cuda


def test_the_first_installed_package_counts() -> None:
    assert package_version("no-such-package", "pytest") == pytest.__version__
    assert package_version("no-such-package") is None


def test_what_is_told_otherwise_is_not_known() -> None:
    assert Versions.from_json({"engine": "vllm", "cuda": None, "gpu": 3, "colour": "red"}) == Versions("vllm")
    assert str(Versions()) == "engine unknown, no CUDA"
