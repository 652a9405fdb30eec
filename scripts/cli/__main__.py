# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.cli`: the command `triton-chat` if its script is not on PATH."""

import sys

from scripts.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
