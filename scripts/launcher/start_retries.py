# SPDX-License-Identifier: Apache-2.0
"""Decide whether a start of tritonserver that failed is tried again, and when.

On a machine short of CPU time or memory a model's process may stand still for a second while it starts. Triton's Python
backend then takes it for dead (python_backend/heartbeat.py), and the start fails, crashes, or waits for ever. That has
nothing to do with the model, and the next start mostly ends well.
"""

import re
import signal
from collections.abc import Sequence

from scripts.launcher.diagnose import TAKEN_FOR_DEAD, explain

# Before each more try, growing: the machine may be less busy by then.
PAUSES_S = (1.0, 4.0, 15.0)
# Exit statuses of a tritonserver that crashes while it loads.
CRASHES = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS)
# What Triton's Python backend says of a process that it gave up.
GAVE_UP = re.compile(
    r"Stub process '(?P<model>[\w.-]+?)_\d+_\d+' is not healthy|Failed to obtain the health mutex"
    r"|interprocess::lock_exception"
)


def gave_up(text: str) -> bool:
    """Whether an error of Triton says that it gave up a model's process."""
    return GAVE_UP.search(text) is not None


def stall(lines: Sequence[str], exit_status: int | None = None) -> str | None:
    """What tritonserver did to a model's process that stood still, by its log and its exit.

    None if nothing shows it, or if the log has another reason why the process ended, such as too little memory.
    """
    found = next((found for line in lines if (found := GAVE_UP.search(line))), None)
    if found is not None:
        if not (explain(lines) or TAKEN_FOR_DEAD).startswith(TAKEN_FOR_DEAD):
            return None
        model = f"a process of model {found['model']}" if found["model"] else "a model's process"
        return f"took {model} for dead while it loaded (it stood still for a second, or it ended)"
    return "crashed while it loaded" if exit_status in CRASHES and not explain(lines) else None


class StartRetries:
    """Counts the tries of one start."""

    def __init__(self) -> None:
        self._pauses = list(PAUSES_S)

    def next_pause(self) -> float | None:
        """Seconds until the next try, None if there were enough."""
        return self._pauses.pop(0) if self._pauses else None

    @property
    def tried(self) -> str:
        """Which of the tries comes next, for people."""
        return f"{len(PAUSES_S) + 1 - len(self._pauses)} of {len(PAUSES_S) + 1}"
