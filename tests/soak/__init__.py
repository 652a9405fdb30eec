# SPDX-License-Identifier: Apache-2.0
"""Long runs outside CI, from the repository's root: `python -m tests.soak aborts` and `... overload`.

Their results on one machine are in docs/soak.md.
"""
