# SPDX-License-Identifier: Apache-2.0
"""Install HAProxy with apt, for the test of docker/haproxy. Runs on any Python 3, without packages."""

import shutil
import sys

from scripts.setup.install_chromium import install

ADVICE = "The balancer's test needs HAProxy: install it so that `haproxy` is on PATH, then run this again."


def find_haproxy() -> str | None:
    """Path of an installed HAProxy, or None; Debian has it in a folder of only root's PATH."""
    return shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")


def main() -> int:
    """Install HAProxy; returns the exit status."""
    return install("haproxy", find_haproxy, ADVICE)


if __name__ == "__main__":
    sys.exit(main())
