# SPDX-License-Identifier: Apache-2.0
"""Files that are read again when they change."""

import os
from pathlib import Path


def file_version(path: Path) -> tuple[int, ...]:
    """Return what differs once a file was changed or replaced; empty if there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns
