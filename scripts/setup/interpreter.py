# SPDX-License-Identifier: Apache-2.0
"""Check that this Python can run the embedded tritonserver, before `make setup` installs anything."""

from __future__ import annotations  # so that older Pythons get as far as the message

import platform
import sys
import sysconfig
from pathlib import Path

# numpy 1.26 has no builds for 3.13, networkx and others of requirements/serve.txt none for 3.10.
SUPPORTED = ((3, 11), (3, 12))
# The wheel with tritonserver is built for manylinux_2_35: Ubuntu 22.04, Debian 12 and later.
MINIMUM_GLIBC = (2, 35)


def libpython_dir() -> Path | None:
    """Folder of the interpreter's shared libpython3.X.so.1.0, or None if there is none.

    The Python backend's stub embeds it, so it must exist even if `python3` itself does not use it.
    """
    name = "libpython{}.{}.so.1.0".format(*sys.version_info[:2])
    folders = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib")]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if multiarch:
        folders += [f"{folder}/{multiarch}" for folder in (sysconfig.get_config_var("LIBDIR"), "/usr/lib")]
    return next((Path(folder) for folder in folders if folder and (Path(folder) / name).is_file()), None)


def libpython_problem() -> str | None:
    """Check that the stub can embed this interpreter; returns None, or the problem and how to fix it."""
    if libpython_dir() is not None:
        return None
    version = "{}.{}".format(*sys.version_info[:2])
    return (
        f"{sys.executable} has no shared libpython{version}.so.1.0, which Triton's Python backend embeds. Fix it: "
        f"on Debian or Ubuntu `apt-get install libpython{version}`; with pyenv reinstall this Python with "
        "PYTHON_CONFIGURE_OPTS=--enable-shared; or choose another with `make setup PYTHON=/path/to/python3`."
    )


def python_problem() -> str | None:
    """Check that this version of Python can run the embedded tritonserver; returns None or the problem."""
    if sys.version_info[:2] in SUPPORTED:
        return None
    versions = " or ".join("{}.{}".format(*version) for version in SUPPORTED)
    return (
        f"{sys.executable} is Python {platform.python_version()}; Python {versions} is needed. "
        "Choose one with `make setup PYTHON=/path/to/python3.11`."
    )


def platform_problem() -> str | None:
    """Check that this machine can run the embedded tritonserver; returns None or the problem."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return (
            f"this machine is {platform.system()} {platform.machine()}; the embedded tritonserver is built for Linux "
            "x86_64. Elsewhere use a Triton container."
        )
    name, version = platform.libc_ver()
    if name == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < MINIMUM_GLIBC:
        return f"glibc {version} is too old for the embedded tritonserver; Ubuntu 22.04, Debian 12 or later is needed."
    return None


def problems() -> list[str]:
    """All problems of this interpreter and machine with the embedded tritonserver."""
    return [problem for problem in (python_problem(), platform_problem(), libpython_problem()) if problem]


def main() -> int:
    """Print the problems; returns 1 if there are any."""
    found = problems()
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
