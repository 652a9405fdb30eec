# SPDX-License-Identifier: Apache-2.0
"""Run the frontend: `triton-chat frontend --triton-url 127.0.0.1:8001`, or `python -P -m frontend` without the scripts.

Without -P, Python would run a package `frontend` of the current directory instead, if there is one.
"""

import os
import sys
from collections.abc import Sequence

from frontend.settings import Settings, SettingsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve with the settings of the command line and the environment; return the exit status."""
    try:
        settings = Settings.load(sys.argv[1:] if arguments is None else arguments, os.environ)
        # After the options are read: it imports for a second.
        from frontend.server import run

        return run(settings)
    except SettingsError as error:
        sys.stderr.write(f"error: {error}.\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
