# SPDX-License-Identifier: Apache-2.0
"""The cache folder: what setup downloads and converts, each entry built once and put in place whole."""

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

# The clone, or the folder that the package was installed into: model_repository/ and models/ lie in either.
REPOSITORY = Path(__file__).resolve().parent.parent
# Names the version that a finished entry was built from; absent in anything unfinished.
MARKER = ".complete"


def cache_dir() -> Path:
    """TRITON_CHAT_CACHE, else .cache in a clone, else triton-chat in the user's cache folder."""
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


def build_once(entry: Path, version: str, build: Callable[[Path], None]) -> bool:
    """Fill `entry` by `build(folder)` unless it was built from `version` before; returns whether it was built now.

    `build` gets an empty folder beside `entry`, which is renamed into place when it is done, so that nobody sees half
    an entry. Other processes that want the same entry wait.
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
    """Fetch one wheel, without its dependencies, from the package index that pip is set up for; shows pip's progress.

    Raises CommandError naming the requirement if pip finds none.
    """
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary=:all:",
    ]
    # Its words go to standard error: what is printed on the other is the result.
    if subprocess.run([*command, "--dest", str(folder), requirement], stdout=2).returncode != 0:  # nosec B603 # fixed program, no shell
        raise CommandError(f"pip could not download {requirement}; is the package index reachable?")
    return next(folder.glob("*.whl"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
