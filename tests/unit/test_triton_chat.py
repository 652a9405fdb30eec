# SPDX-License-Identifier: Apache-2.0
"""Whatever folder the user is in and whatever is on PYTHONPATH, this project's own packages are imported."""

import os
import site
import subprocess
import sys
from pathlib import Path

import pytest

import triton_chat
from frontend import __version__
from scripts.launcher.environment import frontend_command, python_command
from tests.support.hostile_folder import make_hostile_folder
from tests.support.packages import PACKAGES
from triton_chat import ROOT, child_environment, python_path


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    return make_hostile_folder(tmp_path / "project")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the packages were in site-packages, and not in a clone."""
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(ROOT)])


def test_the_packages_are_those_that_are_installed() -> None:
    assert sorted(triton_chat.PACKAGES) == sorted(PACKAGES)


def test_our_folder_comes_before_those_of_the_user(tmp_path: Path) -> None:
    assert python_path({}) == str(ROOT)
    assert python_path({"PYTHONPATH": f"{tmp_path}:{ROOT}"}) == f"{ROOT}:{tmp_path}"


@pytest.mark.usefixtures("installed")
def test_installed_packages_need_it_only_where_others_would_hide_them(hostile: Path, tmp_path: Path) -> None:
    assert python_path({}) == ""
    assert python_path({"PYTHONPATH": str(tmp_path)}) == str(tmp_path)
    assert python_path({"PYTHONPATH": str(hostile)}) == f"{ROOT}:{hostile}"
    (tmp_path / "plain" / "scripts").mkdir(parents=True)
    assert python_path({"PYTHONPATH": f"{tmp_path}/plain"}) == f"{tmp_path}/plain", "a plain folder hides no package"


def test_relative_folders_become_absolute_and_empty_ones_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert python_path({"PYTHONPATH": ":engines_of_mine:"}) == f"{ROOT}:{tmp_path}/engines_of_mine"


def test_children_do_not_search_the_current_directory() -> None:
    environment = child_environment({"HOME": "/h", "PYTHONPATH": "/custom"})
    assert environment == {"HOME": "/h", "PYTHONSAFEPATH": "1", "PYTHONPATH": f"{ROOT}:/custom"}


@pytest.mark.parametrize("command", [frontend_command(), python_command("scripts.cli")], ids=["frontend", "cli"])
def test_a_child_imports_ours_in_a_folder_with_the_same_names(command: list[str], hostile: Path) -> None:
    environment = child_environment(os.environ | {"PYTHONPATH": str(hostile)})
    done = subprocess.run([*command, "--help"], cwd=hostile, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("python_path", ["{hostile}:{root}", ":{root}"], ids=["named", "current"])
def test_the_command_itself_imports_ours(python_path: str, hostile: Path) -> None:
    environment = os.environ | {"PYTHONPATH": python_path.format(hostile=hostile, root=ROOT)}
    code = "import sys, triton_chat; sys.exit(triton_chat.main())"
    line = [sys.executable, "-P", "-c", code, "--version"]
    done = subprocess.run(line, cwd=hostile, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[:1]) == (0, [f"triton-chat {__version__}"]), done.stderr


@pytest.mark.parametrize("python_path", ["", "/nowhere"])
def test_a_command_without_such_folders_is_run_at_once(
    python_path: str, hostile: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hostile)
    monkeypatch.setenv("PYTHONPATH", python_path)
    monkeypatch.setattr(sys, "argv", ["triton-chat", "--version"])
    monkeypatch.setattr(os, "execve", lambda *arguments: pytest.fail("a new interpreter was started"))
    assert triton_chat.main() == 0
    assert capsys.readouterr().out.startswith(f"triton-chat {__version__}\n")


def test_a_plain_folder_hides_the_packages_of_a_clone(tmp_path: Path) -> None:
    """An editable installation is searched only after it."""
    (tmp_path / "scripts").mkdir()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    code = "import sys, triton_chat; sys.exit(triton_chat.main())"
    line = [sys.executable, "-P", "-c", code, "--version"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[:1]) == (0, [f"triton-chat {__version__}"]), done.stderr
