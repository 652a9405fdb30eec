# SPDX-License-Identifier: Apache-2.0
"""Install Chromium with apt, for the tests of the chat page. Runs on any Python 3, without packages."""

import fcntl
import os
import shutil
import subprocess  # nosec B404 # fixed programs, no shell
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
ADVICE = "The chat page's tests need Chromium: install it so that `chromium` is on PATH, then run this again."


def find_chromium() -> str | None:
    """Path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def as_root() -> list[str]:
    """The words before a command that needs root; none for root itself."""
    return [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]


@contextmanager
def only_apt() -> Iterator[None]:
    """Hold a lock of this user's calls of apt, which ends with an error if another one is at work."""
    with open(Path(tempfile.gettempdir(), f"triton-chat-apt-{os.getuid()}.lock"), "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(package: str, find: Callable[[], str | None], advice: str) -> int:
    """Install a system package unless `find` finds its program; returns 0 if it does in the end, else 1."""
    if find():
        return 0
    root = as_root()
    if shutil.which("apt-get") is None or (root and shutil.which("sudo") is None):
        print(advice, file=sys.stderr)
        return 1
    with only_apt():
        for command in (["update"], ["install", "--yes", "--no-install-recommends", package]):
            subprocess.run([*root, "apt-get", "--quiet=2", *command], check=False)  # nosec B603 # fixed program, no shell
    if find() is None:
        print(advice, file=sys.stderr)
        return 1
    return 0


def main() -> int:
    """Install Chromium; returns the exit status."""
    return install("chromium", find_chromium, ADVICE)


if __name__ == "__main__":
    sys.exit(main())
