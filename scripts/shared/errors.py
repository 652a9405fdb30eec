# SPDX-License-Identifier: Apache-2.0
"""What is raised where an engine cannot be built or loaded."""


class EngineError(Exception):
    """Why, and how to mend it, in words for the person at the terminal.

    log: the last lines of the tool that failed, oldest first; empty where no tool was running.
    """

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


class ManifestError(EngineError):
    """An engine that does not belong to what it is to be loaded with."""
