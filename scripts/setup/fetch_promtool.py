# SPDX-License-Identifier: Apache-2.0
"""Take promtool out of Debian's package of Prometheus, for the tests of docker/prometheus. Runs on any Python 3.

The package is not installed: with it a Prometheus server would start at every boot.
"""

import io
import os
import shutil
import subprocess  # nosec B404 # fixed programs, no shell
import sys
import tarfile
import tempfile
from pathlib import Path

from scripts.setup.install_chromium import as_root, only_apt

ADVICE = "The alerts' tests need promtool, which comes with Prometheus: put it into {}, then run this again."
_FAILED = (OSError, subprocess.CalledProcessError, StopIteration, KeyError, tarfile.TarError)


def fetch_promtool(folder: Path) -> None:
    """Put promtool into a folder. Raises one of _FAILED if that is not possible."""
    found = shutil.which("promtool")
    if found is not None:
        (folder / "promtool").symlink_to(found)
        return
    with only_apt(), tempfile.TemporaryDirectory() as place:
        # apt as root downloads as the user _apt.
        os.chmod(place, 0o755)  # nosec B103 # empty, and holds only the package
        try:
            _run("apt-get", "--quiet=2", "download", "prometheus", folder=place)
        except subprocess.CalledProcessError:
            # The lists of packages are missing, or too old.
            _run(*as_root(), "apt-get", "--quiet=2", "update", folder=place)
            _run("apt-get", "--quiet=2", "download", "prometheus", folder=place)
        package = next(Path(place).glob("prometheus_*.deb"))
        files = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout  # nosec B603, B607 # fixed program, no shell
        # Only this file is unpacked: the others take longer.
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            program = archive.extractfile("./usr/bin/promtool")
            if program is None:
                raise KeyError("./usr/bin/promtool")
            (folder / "promtool").write_bytes(program.read())
        (folder / "promtool").chmod(0o755)


def _run(*command: str, folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)  # nosec B603 # fixed programs, no shell


def main() -> int:
    """Fetch promtool into the folder of the command line, unless it is there; returns the exit status."""
    folder = Path(sys.argv[1])
    if (folder / "promtool").exists():
        return 0
    try:
        fetch_promtool(folder)
    except _FAILED:
        print(ADVICE.format(folder), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
