# SPDX-License-Identifier: Apache-2.0
"""Mends the stack: starts a dead frontend or tritonserver anew, and loads a model whose process died anew."""

import time
from collections.abc import Callable

from scripts.launcher.budget import WINDOW_S, RestartBudget, backoff_s
from scripts.launcher.diagnose import describe_exit
from scripts.launcher.processes import Part
from scripts.launcher.repository import Load
from scripts.launcher.stubs import Stubs

# What these hold is gone with a request. The engine's process takes the weights and all running requests with it, which
# Triton then never ends: only a new tritonserver helps.
RELOADABLE = ("preprocessing", "vit", "postprocessing")
_STUBS_PERIOD_S = 0.5
_READY_PERIOD_S = 1.0
_MEMORY_PERIOD_S = 10.0
# What still runs in the other processes of a model that was loaded anew has ended by then; Triton would keep them.
_RETIRE_S = 30.0


class CrashLoop(Exception):
    """A part died too often. part: the one that did."""

    def __init__(self, part: Part, message: str) -> None:
        super().__init__(message)
        self.part = part


class Supervisor:
    """`step` looks after the parts once and never blocks for long.

    parts: tritonserver, then the frontends and the chat page; a part that is started anew takes its place in this list.
    load: starts loading a model. ready: whether the stack can serve. say: what the person at the terminal is told.
    """

    def __init__(
        self,
        parts: list[Part],
        *,
        budget: RestartBudget,
        load: Callable[[str], Load],
        ready: Callable[[], bool],
        ready_timeout_s: float,
        say: Callable[[str], None],
    ) -> None:
        self._parts = parts
        self._budget = budget
        self._load = load
        self._ready = ready
        self._ready_timeout_s = ready_timeout_s
        self._say = say
        self._stubs = Stubs(parts[0].pid)
        self._stubs.died()
        self._to_load: list[str] = []
        self._loading: Load | None = None
        self._replaced: list[int] = []
        self._retired: list[tuple[float, list[int]]] = []
        self._start_at: float | None = None
        self._started_at: float | None = None
        self._next_look = self._next_note = 0.0
        # Triton can neither unload a model whose process died nor release the requests of a client that went away in
        # the middle: such a server does not end by itself in good time.
        self.wounded = False

    def step(self) -> None:
        """Mend what has died since the last step; raises CrashLoop where that was too often."""
        for index in range(1, len(self._parts)):
            self._watch_part(index)
        if self._start_at is not None:
            self._start_triton_in_time()
        elif (status := self._parts[0].exit_status()) is not None:
            self._restart_triton(describe_exit(status))
        elif time.monotonic() >= self._next_look:
            if self._started_at is not None:
                self._await_triton(self._started_at)
            else:
                self._watch_models()

    def _watch_part(self, index: int) -> None:
        part = self._parts[index]
        status = part.exit_status()
        if status is None:
            return
        self._spend(part, part.name, describe_exit(status))
        # Triton never learns of a chat page's end: the frontend cancels what was asked for it.
        self.wounded = self.wounded or part.name.startswith("frontend")
        part.stop(0.0)
        self._parts[index] = part.again()

    def _restart_triton(self, what: str) -> None:
        part = self._parts[0]
        fault = self._spend(part, part.name, what)
        # At once: its in-flight requests would wait for ever, and their clients learn it by the broken connection.
        part.stop(0.0)
        self._loading, self._to_load, self._retired = None, [], []
        self._start_at, self._started_at = time.monotonic() + backoff_s(fault), None

    def _start_triton_in_time(self) -> None:
        if self._start_at is not None and time.monotonic() >= self._start_at:
            self._parts[0] = self._parts[0].again()
            self._stubs, self.wounded = Stubs(self._parts[0].pid), False
            self._start_at, self._started_at = None, time.monotonic()

    def _await_triton(self, started_at: float) -> None:
        self._next_look = time.monotonic() + _READY_PERIOD_S
        elapsed = time.monotonic() - started_at
        if self._ready():
            self._say(f"ready again after {elapsed:.0f} s")
            self._started_at = None
            self._stubs.died()
        elif elapsed > self._ready_timeout_s:
            self._restart_triton(f"was not ready after {self._ready_timeout_s:g} s")

    def _watch_models(self) -> None:
        now = time.monotonic()
        self._next_look = now + _STUBS_PERIOD_S
        if now >= self._next_note:
            self._next_note = now + _MEMORY_PERIOD_S
            self._parts[0].note_shared_memory()
        for model in self._stubs.died():
            self.wounded = True
            if model not in RELOADABLE:
                self._restart_triton(f"has lost the process of model {model}")
                return
            self._spend(self._parts[0], f"model {model}", "has lost a process")
            if model not in self._to_load:
                self._to_load.append(model)
        self._load_next()

    def _load_next(self) -> None:
        if self._loading is not None and self._loading.done:
            loaded, self._loading = self._loading, None
            if loaded.error is not None:
                self._restart_triton(f"could not load model {loaded.model} anew ({loaded.error})")
                return
            self._say(f"model {loaded.model} is loaded anew")
            self._retired.append((time.monotonic() + _RETIRE_S, self._replaced))
        if self._loading is None and self._to_load:
            model = self._to_load.pop(0)
            self._replaced = self._stubs.living(model)
            self._loading = self._load(model)
        while self._retired and self._retired[0][0] <= time.monotonic():
            self._stubs.end(self._retired.pop(0)[1])

    def _spend(self, part: Part, name: str, what: str) -> int:
        fault = self._budget.spend(name)
        if fault is None:
            minutes = WINDOW_S / 60
            raise CrashLoop(
                part, f"{name} {what}. This is fault {self._budget.most + 1} within {minutes:g} minutes: giving up."
            )
        self._say(f"{name} {what}; starting it anew ({fault} of {self._budget.most})")
        return fault
