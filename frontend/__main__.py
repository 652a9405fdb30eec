# SPDX-License-Identifier: Apache-2.0
"""Run the frontend: `python -m frontend --port 9997 --triton-url 127.0.0.1:8001`."""

import os
import sys

from frontend.server import run
from frontend.settings import Settings, SettingsError


def main() -> int:
    """Serve with the settings of the command line and the environment; return the exit status."""
    try:
        return run(Settings.load(sys.argv[1:], os.environ))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
