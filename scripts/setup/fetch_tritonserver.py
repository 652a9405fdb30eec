# SPDX-License-Identifier: Apache-2.0
"""Fetch tritonserver, its Python backend and libraries from the nvidia-pytriton wheel; needs no container, no root."""

import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from rich.console import Console

from scripts.cache import build_once, cache_dir, download_wheel
from scripts.setup.steps import TRITONSERVER, announce
from scripts.shared.errors import CommandError
from scripts.shared.report import report

REQUIREMENT = "nvidia-pytriton==0.7.0"
# Of the tritonserver in that wheel, in none of whose files it stands.
TRITON_VERSION = "2.51.0"
WANTED = ("pytriton/tritonserver/", "nvidia_pytriton.libs/")
_STUB = "triton_python_backend_stub"


def home() -> Path:
    """Folder of the embedded tritonserver in the cache, which may not exist yet."""
    return cache_dir() / "tritonserver"


def fetch() -> bool:
    """Download and unpack it unless it is in the cache for this Python; returns whether it was fetched now."""
    python = "{}.{}".format(*sys.version_info[:2])
    return build_once(home(), f"{REQUIREMENT} python{python}", lambda folder: _build(folder, python))


def _build(folder: Path, python: str) -> None:
    announce(Console(stderr=True, highlight=False), TRITONSERVER, f"tritonserver {TRITON_VERSION}, 55 MB")
    with tempfile.TemporaryDirectory(dir=folder) as downloads:
        unpack(download_wheel(REQUIREMENT, Path(downloads)), folder)
    lay_out_backends(folder, python)
    link_libnuma(folder)


def unpack(wheel: Path, folder: Path) -> None:
    """Extract the server's part of the wheel, restoring the executable bits that zipfile drops."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.filename.startswith(WANTED):
                path = Path(archive.extract(member, folder))
                path.chmod((member.external_attr >> 16) & 0o777 or path.stat().st_mode)


def lay_out_backends(folder: Path, python: str) -> None:
    """Make a backend directory with the wheel's Python backend and the stub of the Python in use.

    Raises CommandError if the wheel has no stub for that Python.
    """
    server = folder / "pytriton" / "tritonserver"
    stub = server / "python_backend_stubs" / python / _STUB
    if not stub.is_file():
        raise CommandError(f"{REQUIREMENT} has no stub for Python {python}")
    backend = folder / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    shutil.copy2(stub, backend / _STUB)
    for binary in (backend / _STUB, server / "bin" / "tritonserver"):
        binary.chmod(0o755)


def link_libnuma(folder: Path) -> None:
    """Link the wheel's libnuma as libnuma.so.1, which vLLM's CPU kernels need, so that no system package is needed."""
    (bundled,) = (folder / "nvidia_pytriton.libs").glob("libnuma-*.so.1*")
    (folder / "lib").mkdir()
    os.symlink(Path("..") / "nvidia_pytriton.libs" / bundled.name, folder / "lib" / "libnuma.so.1")


def main() -> int:
    """Fetch tritonserver; returns 1 after an error."""
    try:
        fetch()
    except CommandError as error:
        report(error)
        return error.status
    return 0


if __name__ == "__main__":
    sys.exit(main())
