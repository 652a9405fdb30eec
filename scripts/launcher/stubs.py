# SPDX-License-Identifier: Apache-2.0
"""Find dead processes of Triton's Python models, which Triton itself neither restarts nor reports, and stuck ones."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from common.processes import Process, awaited_children, children, command_line, kill

UNKNOWN = "unknown"
# How often to look for dead ones, and for stuck ones.
LOOK_PERIOD_S, _STUCK_PERIOD_S = 0.5, 1.0
# Longer than a process takes to end that was told to. Killing one that takes longer does no harm: a model is finished
# before its process ends.
_STUCK_S = 12.0


class Death(NamedTuple):
    """A process that has died. model: `UNKNOWN` for one never seen alive."""

    model: str
    pid: int


class Stubs:
    """The stubs of one tritonserver. A dead one remains as a zombie, as Triton does not wait for it."""

    def __init__(self, tritonserver: int) -> None:
        self.tritonserver = tritonserver
        self._models: dict[int, str] = {}
        self._dead: set[int] = set()
        self._reported: set[int] = set()

    def died(self) -> list[Death]:
        """Processes that models have lost since the last call.

        A process counts as dead if it was a zombie at two calls: one that Triton itself ends is a zombie for a moment.
        """
        dead: set[int] = set()
        for stub in self._children():
            if not stub.alive:
                dead.add(stub.pid)
            elif stub.pid not in self._models and (model := model_of(stub.pid)):
                self._models[stub.pid] = model
        found = sorted((dead & self._dead) - self._reported)
        self._dead = dead
        self._reported.update(found)
        return [Death(self._models.get(pid, UNKNOWN), pid) for pid in found]

    def living(self, model: str) -> list[int]:
        """Ids of the model's processes that were alive at the last call of `died`."""
        return [pid for pid, name in self._models.items() if name == model and pid not in self._dead]

    def end(self, pids: Iterable[int]) -> None:
        """Kill processes that are not needed any more, without reporting them."""
        for stub in self._children():
            if stub.pid in pids:
                self._reported.add(stub.pid)
                kill(stub.pid)

    def _children(self) -> list[Process]:
        return [child for child in children(self.tritonserver) if child.is_stub]


class StuckStubs:
    """Stubs that tritonserver waits for to end, while they wait for its next command.

    On a machine short of CPU time Triton 2.51 may take a stub that it starts for dead. It then waits for the stub's
    end, which never comes: neither does that of the load, and other loads wait behind it (python_backend r24.10,
    src/stub_launcher.cc lines 434 to 447). A stub that starts, however slowly, is not waited for in this way.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._look_at = 0.0
        # By process id and start: when it was first found so.
        self._since: dict[tuple[int, int], float] = {}

    def end(self, tritonserver: int) -> list[str]:
        """Kill those that have been stuck for a while, which ends the loads with an error; returns their models."""
        now = self._clock()
        if now < self._look_at:
            return []
        self._look_at = now + _STUCK_PERIOD_S
        awaited = awaited_children(tritonserver)
        found = [child for child in children(tritonserver) if child.pid in awaited and child.is_stub and child.alive]
        self._since = {(one.pid, one.started): self._since.get((one.pid, one.started), now) for one in found}
        stuck = [pid for (pid, _), since in self._since.items() if now - since >= _STUCK_S]
        # Without a model's name it is Triton's test whether it could start one.
        models = {pid: model for pid in stuck if (model := model_of(pid))}
        for pid in models:
            kill(pid)
        return list(models.values())


def model_of(stub: int) -> str | None:
    """The model's name from the stub's command line, .../stub .../NAME/1/model.py ...; None if it has just ended."""
    words = command_line(stub)
    return Path(words[1]).parent.parent.name if len(words) > 1 else None
