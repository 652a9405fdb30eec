# SPDX-License-Identifier: Apache-2.0
"""Long runs outside CI, such as `python -m tests.soak aborts`, from the repository's root: `--help` lists them.

Results are in docs/soak.md.
"""
