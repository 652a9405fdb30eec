# SPDX-License-Identifier: Apache-2.0
"""What the launcher raises when the stack cannot start or go on."""


class LaunchError(Exception):
    """Why the stack does not run, and how to mend it, in words for the person at the terminal.

    log: the last lines of the part that failed, oldest first; empty where no part was running.
    """

    def __init__(self, message: str, mend: str = "", log: tuple[str, ...] = ()) -> None:
        super().__init__(message if not mend else f"{message} {mend}")
        self.log = log
