# SPDX-License-Identifier: Apache-2.0
"""What is raised where a checkpoint cannot be split."""


class SplitError(Exception):
    """Why the checkpoint was not split, in words for the person at the terminal; nothing was left at the target."""


def listed(names: list[str], shown: int = 6) -> str:
    """Names in a row, the first few of them where there are many."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
