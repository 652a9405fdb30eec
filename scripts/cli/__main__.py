# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.cli`: as `triton-chat`, where its script is not on PATH."""

import sys

from scripts.cli.main import main

sys.exit(main())
