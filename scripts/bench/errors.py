# SPDX-License-Identifier: Apache-2.0
"""The benchmark's terminal error."""

from scripts.shared.errors import CommandError


class BenchError(CommandError):
    """A benchmark cannot be run as asked; the message is for the user at the terminal."""

    status = 2
