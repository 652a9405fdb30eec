# SPDX-License-Identifier: Apache-2.0
"""`python -m scripts.split <checkpoint> <output>`."""

import sys

from scripts.split.command import main

sys.exit(main())
