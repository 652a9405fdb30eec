# SPDX-License-Identifier: Apache-2.0
"""Errors that end a command of `triton-chat`, which prints them and exits with their status.

CommandError
  LaunchError          the stack cannot start or keep running (scripts/launcher)
  EngineError          an engine cannot be built or loaded
    ManifestError      an engine does not belong to what it is loaded with
  SplitError           a checkpoint cannot be split (scripts/split)
  BenchError           a benchmark cannot be run as asked (scripts/bench)
  AttachmentError      an image or video cannot be attached (scripts/cli)
"""

from collections.abc import Sequence


class CommandError(Exception):
    """A command failed: the message says why and what to do, in words for the user at the terminal.

    advice: added to the message. log: last lines of the process that failed, oldest first, printed before the message;
    empty if no process was running. Notes (`add_note`) are printed after it. status: the exit status.
    """

    status = 1

    def __init__(self, message: str, advice: str = "", log: Sequence[str] = ()) -> None:
        super().__init__(f"{message} {advice}" if advice else message)
        self.log = tuple(log)


class EngineError(CommandError):
    """An engine cannot be built or loaded."""


class ManifestError(EngineError):
    """An engine does not belong to the checkpoint, the packages or the GPUs that it is to be loaded with."""
