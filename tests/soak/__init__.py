# SPDX-License-Identifier: Apache-2.0
"""Long runs outside CI: `python -m tests.soak aborts` and `python -m tests.soak overload`, from the repository's root.

Results are in docs/soak.md.
"""
