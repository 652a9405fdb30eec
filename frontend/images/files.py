# SPDX-License-Identifier: Apache-2.0
"""Reads `file:` URLs, only below the directories that the operator lists."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from frontend.images.limits import FetchError
from frontend.settings import Settings, SettingsError

# O_NONBLOCK: opening a FIFO must not wait for its writer. O_NOFOLLOW: the path is resolved, so a link in it is new.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def read_file(url: str, directories: Sequence[Path], most: int) -> bytes:
    """Read up to `most` bytes of a regular file below one of the directories, which are resolved.

    The path is checked after following symbolic links. The same FetchError is raised if a file is missing and if it
    is elsewhere, so that clients cannot find out which files exist. Raises OSError or ValueError if the file cannot
    be read.
    """
    path = _resolve(url)
    if not any(path.is_relative_to(directory) for directory in directories) or not path.is_file():
        raise _not_allowed()
    with open(os.open(path, _FLAGS), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _not_allowed()
        return file.read(most)


def check_image_dirs(settings: Settings) -> None:
    """Raise SettingsError if a directory of the settings does not exist."""
    for directory in settings.image_dirs:
        if not Path(directory).is_dir():
            raise SettingsError(f"--image-dirs={directory!r}: expected a directory that exists")


def _resolve(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc.lower() not in ("", "localhost"):
        raise FetchError("a file: URL can only name a file of the server itself (file:///...)")
    try:
        return Path(os.fsdecode(unquote_to_bytes(parts.path))).resolve()
    except RuntimeError:  # Python 3.11 and 3.12 report a loop of links like this.
        raise _not_allowed() from None


def _not_allowed() -> FetchError:
    return FetchError("a file: URL must name a file in a directory that the server allows (image_dirs)")
