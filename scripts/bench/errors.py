# SPDX-License-Identifier: Apache-2.0
"""The benchmark's terminal error."""


class BenchError(Exception):
    """A benchmark cannot be run as asked; the message is for the user at the terminal."""
