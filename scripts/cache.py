# SPDX-License-Identifier: Apache-2.0
"""The cache folder of downloads and converted models, in which each entry is built once and atomically."""

import fcntl
import os
import shutil
import subprocess  # nosec B404 # fixed programs, no shell
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.shared.errors import CommandError
from triton_chat import ROOT

# The clone, or the folder that the packages were installed into; both have model_repository/ and models/.
REPOSITORY = ROOT
# File with the version that a finished entry was built from; missing in an unfinished one.
MARKER = ".complete"


def cache_dir() -> Path:
    """The cache folder: TRITON_CHAT_CACHE, else .cache in a clone, else triton-chat in the user's cache."""
    chosen = os.environ.get("TRITON_CHAT_CACHE")
    if chosen:
        return Path(chosen).resolve()
    if (REPOSITORY / "pyproject.toml").is_file():
        return REPOSITORY / ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").resolve() / "triton-chat"


def is_built(entry: Path, version: str) -> bool:
    """Whether `entry` was built from `version`."""
    marker = entry / MARKER
    return marker.is_file() and marker.read_text(encoding="utf-8") == version


def build_once(entry: Path, version: str, build: Callable[[Path], object]) -> bool:
    """Build `entry` unless it was built from `version` before; returns whether it was built now.

    build: fills an empty folder, which is then renamed to `entry`, so that no half-built entry is ever visible. Other
    processes that need the same entry wait.
    """
    if is_built(entry, version):
        return False
    entry.parent.mkdir(parents=True, exist_ok=True)
    with _locked(entry.with_name(f".{entry.name}.lock")):
        if is_built(entry, version):
            return False
        partial = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=entry.parent))
        try:
            partial.chmod(0o755)
            build(partial)
            (partial / MARKER).write_text(version, encoding="utf-8")
            shutil.rmtree(entry, ignore_errors=True)
            partial.rename(entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return True


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel without its dependencies from pip's package index.

    Of pip's output only warnings and errors are shown: the caller says what is downloaded and how large it is. Raises
    CommandError naming the requirement if pip finds none.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
    ]
    # pip's output goes to standard error, because standard output is for a command's result.
    if subprocess.run([*command, "--dest", str(folder), requirement], stdout=2).returncode != 0:  # nosec B603 # fixed program, no shell
        raise CommandError(f"pip could not download {requirement}; is the package index reachable?")
    return next(folder.glob("*.whl"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
