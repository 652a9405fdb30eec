# SPDX-License-Identifier: Apache-2.0
"""HAProxy for the test of docker/haproxy, by apt where it is missing. Runs on any Python 3, without packages."""

import shutil
import sys

from scripts.setup.install_chromium import install

MEND = "The balancer's test needs HAProxy: install it so that `haproxy` is on PATH, then run this again."


def find_haproxy() -> str | None:
    """Path of an installed HAProxy; Debian has it where only root's PATH leads."""
    return shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")


def main() -> int:
    """Install it; the exit status is 0 where there is one in the end."""
    return install("haproxy", find_haproxy, MEND)


if __name__ == "__main__":
    sys.exit(main())
