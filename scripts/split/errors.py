# SPDX-License-Identifier: Apache-2.0
"""The error of a failed split, and lists of names in its messages."""

from scripts.shared.errors import CommandError


class SplitError(CommandError):
    """The checkpoint cannot be split; the message is for the user at the terminal, and the target is unchanged."""


def listed(names: list[str], limit: int = 6) -> str:
    """Join names with commas; at most `limit` of them, and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
