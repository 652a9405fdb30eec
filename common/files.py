# SPDX-License-Identifier: Apache-2.0
"""Files that are read again when they change, and what an operating system says of a failure."""

import os
import re
from pathlib import Path


def file_version(path: Path) -> tuple[int, ...]:
    """Return what differs once a file was changed or replaced; empty if there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns


def reason(error: Exception) -> str:
    """Return what failed, without Python's number of the error and the file, which the message around it names."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or re.sub(r"^\[Errno -?\d+\] ", "", str(error))
