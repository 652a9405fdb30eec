# SPDX-License-Identifier: Apache-2.0
"""Restarts a dead frontend, chat page or tritonserver, and reloads a model whose process died.

Of several models, one that loses a process is replaced, and the others go on (scripts/launcher/models.py).
"""

import time
from collections.abc import Callable

from common.files import reason
from scripts.launcher.budget import WINDOW_S, RestartBudget, backoff_s
from scripts.launcher.child_process import ChildProcess
from scripts.launcher.diagnose import describe_exit
from scripts.launcher.models import RELOADABLE, ServedModels
from scripts.launcher.repository import Load
from scripts.launcher.start_retries import stall
from scripts.launcher.stubs import LOOK_PERIOD_S, Stubs

_READY_PERIOD_S = 1.0
_MEMORY_PERIOD_S = 10.0
# Triton keeps the other processes of a reloaded model. What still runs in them has ended after this time.
_RETIRE_S = 30.0


class CrashLoop(Exception):
    """A part died too often. part: the one that did."""

    def __init__(self, part: ChildProcess, message: str) -> None:
        super().__init__(message)
        self.part = part


class Supervisor:
    """Checks the parts of the stack and restarts what has died, one short step at a time.

    parts: tritonserver, then the frontends and the chat page; a restarted part takes its place in this list.
    load: starts loading a model. ready: whether the stack can serve. log: prints a line on the terminal.
    models: several models, which are told what they lose; None for one model alone.
    stubs: those of tritonserver, if they were watched during the start.
    """

    def __init__(
        self,
        parts: list[ChildProcess],
        *,
        budget: RestartBudget,
        load: Callable[[str], Load],
        ready: Callable[[], bool],
        ready_timeout_s: float,
        log: Callable[[str], None],
        models: ServedModels | None = None,
        stubs: Stubs | None = None,
    ) -> None:
        self._parts = parts
        self._budget = budget
        self._load = load
        self._ready = ready
        self._ready_timeout_s = ready_timeout_s
        self._log = log
        self._models = models
        self._stubs = stubs or Stubs(parts[0].pid)
        if stubs is None:
            self._stubs.died()
        self._to_load: list[str] = []
        self._loading: Load | None = None
        self._replaced: list[int] = []
        self._retired: list[tuple[float, list[int]]] = []
        self._start_at: float | None = None
        # Of parts that could not be started, by their place: when that is tried again.
        self._part_at: dict[int, float] = {}
        self._started_at: float | None = None
        self._next_check = self._next_memory_record = 0.0
        # Triton can neither unload a model whose process died nor release the requests of a frontend that died. Such a
        # server does not end by itself in good time.
        self.degraded = False

    def step(self) -> None:
        """Restart what has died since the last step; returns within milliseconds.

        Raises CrashLoop if a part has died too often.
        """
        for index in range(1, len(self._parts)):
            self._check_part(index)
        if self._start_at is not None:
            self._start_triton_when_due(self._start_at)
        elif (status := self._parts[0].exit_status()) is not None:
            self._restart_triton(describe_exit(status))
        elif time.monotonic() >= self._next_check:
            if self._started_at is not None:
                self._await_triton(self._started_at)
            else:
                self._check_models()

    def _check_part(self, index: int) -> None:
        part = self._parts[index]
        status = part.exit_status()
        if status is None or time.monotonic() < self._part_at.get(index, 0.0):
            return
        if index not in self._part_at:
            self._spend(part, part.name, describe_exit(status))
            # A dead chat page leaves nothing in Triton: the frontend cancels its requests.
            self.degraded = self.degraded or part.name.startswith("frontend")
            part.stop(0.0)
        try:
            self._parts[index] = part.restart()
        except OSError as error:
            self._part_at[index] = self._try_again_at(part, error)
        else:
            self._part_at.pop(index, None)

    def _restart_triton(self, what: str) -> None:
        part = self._parts[0]
        fault = self._spend(part, part.name, what)
        if self._models is not None:
            self._models.server_lost()
        # Without a grace period: its requests would wait for ever, and their clients learn it by the broken connection.
        part.stop(0.0)
        self._loading, self._to_load, self._retired = None, [], []
        self._start_at, self._started_at = time.monotonic() + backoff_s(fault), None

    def _start_triton_when_due(self, start_at: float) -> None:
        if time.monotonic() >= start_at:
            try:
                self._parts[0] = self._parts[0].restart()
            except OSError as error:
                self._start_at = self._try_again_at(self._parts[0], error)
                return
            self._stubs, self.degraded = Stubs(self._parts[0].pid), False
            self._start_at, self._started_at = None, time.monotonic()
            if self._models is not None:
                self._models.load_all()

    def _await_triton(self, started_at: float) -> None:
        self._next_check = time.monotonic() + _READY_PERIOD_S
        elapsed = time.monotonic() - started_at
        # Of several models `_check_models` takes care afterwards.
        if self._models is None and (dead := self._stubs.died()):
            # Triton takes the model for loaded, and would never become ready.
            self._restart_triton(f"has lost the process of model {dead[0].model} before it was ready")
        elif self._ready():
            self._log(f"ready again after {elapsed:.0f} s")
            self._started_at = None
        elif self._models is None and (what := stall(self._parts[0].lines())):
            self._restart_triton(what)
        elif elapsed > self._ready_timeout_s:
            self._restart_triton(f"was not ready after {self._ready_timeout_s:g} s")

    def _check_models(self) -> None:
        now = time.monotonic()
        self._next_check = now + LOOK_PERIOD_S
        if now >= self._next_memory_record:
            self._next_memory_record = now + _MEMORY_PERIOD_S
            self._parts[0].record_shared_memory()
        for model, pid in self._stubs.died():
            self.degraded = True
            if self._models is not None:
                reloadable = self._models.lose(model, pid)
            # The engine's process takes the weights and all running requests with it, which Triton then never ends:
            # only a new tritonserver helps the one model alone.
            elif reloadable := model in RELOADABLE:
                self._spend(self._parts[0], f"model {model}", "has lost a process")
            else:
                self._restart_triton(f"has lost the process of model {model}")
                return
            if reloadable and model not in self._to_load:
                self._to_load.append(model)
        self._load_next()

    def _load_next(self) -> None:
        if self._loading is not None and self._loading.done:
            loaded, self._loading = self._loading, None
            if loaded.error is not None and self._models is not None:
                self._models.replace(loaded.model)
            elif loaded.error is not None:
                self._restart_triton(f"could not load model {loaded.model} again ({loaded.error})")
                return
            else:
                self._log(f"model {loaded.model} is loaded again")
                self._retired.append((time.monotonic() + _RETIRE_S, self._replaced))
        if self._loading is None and self._to_load:
            model = self._to_load.pop(0)
            self._replaced = self._stubs.living(model)
            self._loading = self._load(model)
        while self._retired and self._retired[0][0] <= time.monotonic():
            self._stubs.end(self._retired.pop(0)[1])

    def _try_again_at(self, part: ChildProcess, error: OSError) -> float:
        """When to start a part again that could not be started, such as for lack of memory."""
        fault = self._spend(part, part.name, f"could not be started ({reason(error)})")
        return time.monotonic() + backoff_s(fault)

    def _spend(self, part: ChildProcess, name: str, what: str) -> int:
        """Count a fault and print it; returns its number among the recent ones."""
        fault = self._budget.spend(name)
        if fault is None:
            minutes = WINDOW_S / 60
            raise CrashLoop(
                part, f"{name} {what}. This is fault {self._budget.most + 1} within {minutes:g} minutes: giving up."
            )
        self._log(f"{name} {what}; restarting it ({fault} of {self._budget.most})")
        return fault
