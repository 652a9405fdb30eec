# SPDX-License-Identifier: Apache-2.0
"""Which build of vLLM `make setup` installs, with a fake of NVIDIA's driver library."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.setup import device
from scripts.setup.device import Driver, find_device

ROOT = Path(__file__).parents[4]
NO_DEVICE, NOT_INITIALISED = 100, 3


class FakeLibrary:
    """The three functions of libcuda.so.1 that are used; init: what cuInit returns."""

    def __init__(self, gpus: int = 1, version: int = 13000, init: int = 0) -> None:
        self._gpus, self._version, self._init = gpus, version, init

    def cuInit(self, flags: int) -> int:
        return self._init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self._gpus
        return self._init

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = self._version
        return 0


def driver(monkeypatch: pytest.MonkeyPatch, **fields: int) -> Driver:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: FakeLibrary(**fields))
    return Driver()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "gpu"),
        ({"gpus": 8, "version": 13020}, "gpu"),
        ({"gpus": 0}, "cpu"),
        ({"gpus": 0, "version": 12040}, "cpu"),
        ({"init": NO_DEVICE}, "cpu"),
    ],
)
def test_the_build_fits_the_machine(monkeypatch: pytest.MonkeyPatch, fields: dict[str, int], expected: str) -> None:
    assert find_device(driver(monkeypatch, **fields)) == expected


def test_a_machine_without_the_driver_gets_the_cpu_build() -> None:
    assert find_device(None) == "cpu"


def test_an_old_driver_is_named_with_the_ways_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "load_driver", lambda: driver(monkeypatch, version=12080))
    assert device.main() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    for part in ("CUDA 12.8", "needs 13.0", "580", "DEVICE=cpu"):
        assert part in captured.err


def test_a_failing_driver_is_an_error_and_no_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(device.DeviceError, match=f"cuInit.*error {NOT_INITIALISED}.*DEVICE=cpu"):
        find_device(driver(monkeypatch, init=NOT_INITIALISED))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What make needs to say what it would do."""
    (tmp_path / "scripts" / "setup").mkdir(parents=True)
    for name in ("Makefile", "scripts/setup/device.py", "scripts/setup/interpreter.py"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "requirements").mkdir()
    for path in (ROOT / "requirements").glob("*.txt"):
        (tmp_path / "requirements" / path.name).touch()
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


def planned(clone: Path, *arguments: str) -> str:
    """The commands that make would run on a machine without a GPU."""
    command = ["make", "--dry-run", "--no-print-directory", f"PYTHON={sys.executable}", *arguments]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    return done.stdout + done.stderr


def set_up(clone: Path, build: str) -> None:
    (clone / ".venv").mkdir()
    for stamp in (build, "packages", "serve"):
        (clone / ".venv" / f".{stamp}").touch()


def test_make_numbers_the_steps(clone: Path) -> None:
    """Those that it takes before `serve`; the command continues them, see scripts/setup/steps.py."""
    plan = planned(clone, "serve", "DEVICE=cpu", "MODEL=/models/m")
    assert re.findall(r"setup (\d/\d):", plan) == ["1/4", "2/4"]
    assert re.search(r"MAKE_SERVE_STEPS=first \S+ serve --model /models/m ", plan)
    set_up(clone, "cpu")
    plan = planned(clone, "serve", "MODEL=/models/m")
    assert "serve --model /models/m " in plan and "setup" not in plan.replace("scripts.setup", "")


def test_make_installs_the_build_that_is_asked_for(clone: Path) -> None:
    assert "-r requirements/serve.txt" in planned(clone, "setup")
    plan = planned(clone, "setup", "DEVICE=gpu")
    assert "-r requirements/serve-gpu.txt" in plan and "venv --clear" in plan
    assert "DEVICE=tpu is unknown" in planned(clone, "setup", "DEVICE=tpu")


@pytest.mark.parametrize(("build", "other"), [("cpu", "gpu"), ("gpu", "cpu")])
def test_make_keeps_the_build_that_is_there(clone: Path, build: str, other: str) -> None:
    set_up(clone, build)
    assert "pip" not in planned(clone, "setup")
    assert "pip" not in planned(clone, "setup", f"DEVICE={build}")
    assert "venv --clear" in planned(clone, "setup", f"DEVICE={other}"), "the builds share names of packages"


def test_the_tests_do_not_run_on_the_gpu_build(clone: Path) -> None:
    set_up(clone, "gpu")
    done = subprocess.run(["make", "cpu-build"], cwd=clone, capture_output=True, text=True)
    assert done.returncode != 0 and "make test DEVICE=cpu" in done.stdout
    assert planned(clone, "test").startswith("[ gpu = cpu ]"), "before anything is set up"
