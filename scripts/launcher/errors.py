# SPDX-License-Identifier: Apache-2.0
"""The launcher's terminal error."""

from scripts.shared.errors import CommandError


class LaunchError(CommandError):
    """The stack cannot start or keep running."""
