# SPDX-License-Identifier: Apache-2.0
"""The command `triton-chat`, and the search path that lets Python find this project's packages first.

The packages have everyday names (`frontend`, `common`, `scripts`). A folder of the user's with the same name must not
be imported instead, whether it is in the current directory or on PYTHONPATH. This module has a name of its own and
imports only the standard library, so that it is found whatever else is there.
"""

import os
import site
import sys
from collections.abc import Mapping
from pathlib import Path

# The clone, or the folder that the packages were installed into.
ROOT = Path(__file__).resolve().parent
PACKAGES = (
    "chat_page",
    "common",
    "embedding_repository",
    "engines",
    "families",
    "frontend",
    "model_repository",
    "models",
    "postprocessing",
    "preprocessing",
    "python_backend",
    "scripts",
    "vision",
)


def main() -> int:
    """Run the command line; in a new interpreter if PYTHONPATH leads to other packages of the same names."""
    searched = os.environ.get("PYTHONPATH")
    if searched and any(_hides_ours(entry) for entry in searched.split(os.pathsep)):
        command = [sys.executable, "-P", "-m", "scripts.cli", *sys.argv[1:]]
        os.execve(command[0], command, os.environ | {"PYTHONPATH": python_path(os.environ)})  # nosec B606 # this interpreter
    from scripts.cli.main import main as run_command

    return run_command()


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Environment for a child process that imports this project's packages, and nothing from the current directory."""
    environment = {name: value for name, value in base.items() if name != "PYTHONPATH"}
    path = python_path(base)
    return environment | {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": path} if path else {})


def python_path(base: Mapping[str, str]) -> str:
    """PYTHONPATH of `base` with absolute folders, behind the folder of this project's packages; empty if not needed.

    Installed packages are found without it. Their folder is put first only if PYTHONPATH hides them, because it then
    comes before the standard library as well.
    """
    entries = [os.path.abspath(entry) for entry in base.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if not _is_installed() or any(_hides_ours(entry) for entry in entries):
        entries = [str(ROOT), *(entry for entry in entries if os.path.realpath(entry) != str(ROOT))]
    return os.pathsep.join(entries)


def _is_installed() -> bool:
    return str(ROOT) in map(os.path.realpath, site.getsitepackages())


def _hides_ours(entry: str) -> bool:
    """Whether a folder of PYTHONPATH (empty: the current directory) is searched first for one of these packages."""
    folder = Path(entry or os.curdir).resolve()
    if folder == ROOT:
        return False
    # A folder without __init__.py hides packages of a clone, which `pip install -e` finds last, but no installed ones.
    module = "__init__.py" if _is_installed() else ""
    return any((folder / name / module).exists() or (folder / f"{name}.py").is_file() for name in PACKAGES)
