# SPDX-License-Identifier: Apache-2.0
"""How a served model is loaded, unloaded, reloaded and replaced in a running tritonserver.

A model is an ensemble and a generation of steps (common/model_names.py). The steps of the next generation are loaded
beside those that serve. When all of them are ready, the ensemble is loaded again, now pointing at them, which takes
Triton hundredths of a second; requests that began on the old steps end there. Triton 2.51 stops serving an ensemble
whose load fails, so it is never loaded before its steps are.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from common.model_names import ENGINES, role
from common.models_state import DRAINING, FAILED, LOADING, READY, UNLOADED, ModelState
from scripts.launcher.budget import RestartBudget, backoff_s
from scripts.launcher.generation_loader import GenerationLoader, ProcessDied, Repository
from scripts.launcher.model_folders import ModelFolders, ModelPlan
from scripts.launcher.operations import OperationError, Steps, ended
from scripts.launcher.repository import Call
from scripts.launcher.start_retries import PAUSES_S

# Frontends look at the state file twice a second: what they sent before they saw it has reached Triton by then.
_NOTICE_S = 1.5
_POLL_S = 0.5
# How often in a row an engine is found idle before it is unloaded: requests may be in `preprocessing` before.
_IDLE_LOOKS = 5
# How long cancelled requests may take to end.
_CANCEL_S = 5.0
# Triton ends the processes of an unloaded model within about five seconds, and an engine may take ten more. It never
# does while a client keeps a gRPC stream open on which it once called the step itself.
_GONE_S = 15.0
# A killed process is gone only after its memory is freed.
_KILLED_S = 10.0
# What refused clients are told about a model whose load was never measured.
_UNMEASURED_S = 30.0


# Between the tries to load a model that served before, after the first ones (PAUSES_S).
_RETRY_S = 60.0
# Said of a model while it is replaced.
LOST = "the model has lost a process and is being loaded again"


class Planned(Protocol):
    """A model as the command line or the file of models describes it, checked."""

    @property
    def name(self) -> str:
        """The served name."""

    @property
    def spec(self) -> object:
        """What the operator says of it. Two equal ones are the same model."""

    @property
    def plan(self) -> ModelPlan:
        """What its folders are made of."""


class Processes(Protocol):
    """The running tritonserver and the processes of its models (scripts/launcher/model_processes.py)."""

    def live(self) -> Call:
        """Ask whether tritonserver takes calls."""

    def requests(self) -> Call:
        """Ask for the number of requests in each engine, by its Triton model."""

    def cancel_all(self, engine: str) -> Call:
        """Cancel every request in an engine."""

    def children(self) -> set[int]:
        """Ids of tritonserver's own processes, dead ones included that it has not waited for."""

    def record(self) -> None:
        """Remember which processes the models have started."""

    def alive(self, models: Sequence[str]) -> bool:
        """Whether a process of these Triton models lives, or one that they have started."""

    def kill(self, models: Sequence[str]) -> None:
        """Kill the processes of these Triton models."""


@dataclass(eq=False)
class Model:
    """A served model.

    generation: of the steps that serve, 0 before the first load. newest: the last one tried. wanted: whether it is to
    be loaded after a restart of tritonserver. lost: whether it lost a process and nothing was done about it yet.
    unloading: whether the processes of its steps are to end. again_at: when it is to be loaded again after a load that
    failed, None if it is not. failures: such loads in a row. load_s: seconds that its last load took.
    """

    planned: Planned
    state: str = UNLOADED
    reason: str | None = None
    generation: int = 0
    newest: int = 0
    wanted: bool = True
    lost: bool = False
    unloading: bool = False
    again_at: float | None = None
    failures: int = 0
    load_s: float | None = None

    @property
    def name(self) -> str:
        """The served name, which is its ensemble's in Triton."""
        return self.planned.name

    @property
    def steps(self) -> tuple[str, ...]:
        """The Triton models whose processes serve it."""
        return self.planned.plan.steps(max(1, self.generation))

    @property
    def engine(self) -> str:
        """The Triton model with the network."""
        return next(step for step in self.steps if role(step) in ENGINES)

    @property
    def retry_after(self) -> int | None:
        """Seconds after which a refused client may come again."""
        return None if self.state in (READY, UNLOADED) else max(1, round(self.load_s or _UNMEASURED_S))

    def published(self) -> ModelState:
        """The model as frontends see it."""
        return ModelState(
            state=self.state,
            ensemble=self.name,
            engine=self.engine,
            info=self.planned.plan.info,
            reason=self.reason,
            retry_after=self.retry_after,
        )

    def described(self) -> dict[str, Any]:
        """The model as JSON, for people and programs."""
        info = self.planned.plan.info
        return {
            "state": self.state,
            "reason": self.reason,
            "names": list(info.names),
            "kind": info.kind,
            "engine": self.engine,
            "generation": self.generation,
            "load_seconds": None if self.load_s is None else round(self.load_s, 1),
        }


class Lifecycle:
    """The operations on one model; each goes on when the launcher's main thread resumes it.

    fits: says why a model cannot be loaded into the memory that is left, None if it can. grace_s: how long the running
    requests of a model that is unloaded may take. budget: of the deaths of each model. changed: called after each
    change of a model's state. begin: begins an operation that nobody waits for. log: prints a line.
    """

    def __init__(
        self,
        folders: ModelFolders,
        repository: Repository,
        processes: Processes,
        *,
        fits: Callable[[Planned], str | None],
        grace_s: float,
        budget: RestartBudget,
        changed: Callable[[], None],
        begin: Callable[[Steps], None],
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._repository = repository
        self._processes = processes
        self._fits = fits
        self._grace_s = grace_s
        self._budget = budget
        self._changed = changed
        self._begin = begin
        self._log = log
        self._clock = clock
        self.loader = GenerationLoader(folders, repository, processes.children, self.pause, log)

    def until_live(self) -> Steps:
        """Wait until tritonserver takes calls."""
        while not (yield from ended(self._processes.live())).result:
            yield from self.pause(_POLL_S)

    def load(self, model: Model, planned: Planned) -> Steps:
        """Load a model that does not serve. Raises OperationError; the model has failed then."""
        begun, old = self._clock(), model.steps
        model.again_at = None
        self.set(model, LOADING, model.reason if model.state == LOADING else "the model is being loaded")
        try:
            if self._processes.alive(old):
                # Of an ensemble that was unloaded through Triton's own API.
                yield from self._unload_steps(old)
            if problem := self._fits(planned):
                raise OperationError(problem)
            yield from self._bring_up(model, planned)
        except OperationError as error:
            model.wanted = False
            self.set(model, FAILED, str(error))
            raise OperationError(f"the model '{model.name}' could not be loaded: {error}", error.status) from error
        if old != model.steps:
            self._folders.remove_names(old)
        self._loaded(model, begun)
        return f"model {model.name} is loaded after {model.load_s:.1f} s"

    def restore(self, model: Model) -> Steps:
        """Load a model again that served before, and that nobody has unloaded.

        Raises OperationError if that fails; it is to be tried again then, as often as the budget allows.
        """
        try:
            return (yield from self.load(model, model.planned))
        except OperationError as error:
            if self._budget.spend(model.name) is None:
                # After the loss of a process Triton takes it for ready still.
                yield from ended(self._repository.unload(model.name))
                raise
            pause = PAUSES_S[model.failures] if model.failures < len(PAUSES_S) else _RETRY_S
            model.failures += 1
            model.wanted, model.again_at = True, self._clock() + pause
            self.set(model, LOADING, f"{model.reason}; it is tried again")
            raise OperationError(f"{error}; loading it again in {pause:g} s", error.status) from error

    def replace(self, model: Model) -> Steps:
        """Load the next generation of a model that lost a process, and let go of the old one.

        Raises OperationError if that fails, as `restore` does.
        """
        model.lost = False
        # None of its requests will be answered. What its engine has started still holds the weights.
        yield from self._kill(model.steps)
        self._begin(self._retire(model.steps))
        yield from self.pause(backoff_s(self._budget.recent(model.name)))
        message = yield from self.restore(model)
        return f"{message}, in the place of what died"

    def reload(self, model: Model, planned: Planned) -> Steps:
        """Load the next generation beside the one that serves, or in its place if there is no memory for both.

        Raises OperationError if it cannot be loaded. The old one then goes on serving, or is loaded again.
        """
        begun = self._clock()
        if problem := self._fits(planned):
            self._log(f"model {model.name} is unloaded before it is loaded again: {problem}")
            yield from self._stop_serving(model, "the model is being loaded again", LOADING)
            unserved = self._clock()
            message = yield from self._load_in_place(model, planned)
            return f"{message}; it took no requests for {self._clock() - begun:.1f} s, " + (
                f"of which {self._clock() - unserved:.1f} s were the load"
            )
        old, engine = model.steps, model.engine
        try:
            yield from self._bring_up(model, planned)
        except OperationError as error:
            serves = "" if model.lost or model.state != READY else " It serves as before."
            raise OperationError(f"the model '{model.name}' could not be loaded again: {error}.{serves}") from error
        lost = model.lost
        self._loaded(model, begun)
        self._log(f"model {model.name} serves from its new steps after {model.load_s:.1f} s")
        cancelled = 0 if lost else (yield from self._drain(engine))
        if lost:
            yield from self._kill(old)
        yield from self._retire(old)
        return f"model {model.name} is loaded again, without a gap{_cancelled(cancelled)}"

    def _load_in_place(self, model: Model, planned: Planned) -> Steps:
        """Load a model that was unloaded to make room, or else what served before. Raises OperationError then too."""
        if planned is model.planned:
            return (yield from self.restore(model))
        try:
            return (yield from self.load(model, planned))
        except OperationError as error:
            self._log(f"{error}; it is loaded as it was before")
            try:
                yield from self.restore(model)
            except OperationError as other:
                raise OperationError(f"{error}. As it was before: {other}", error.status) from error
            raise OperationError(f"{error}. It serves as before.", error.status) from error

    def unload(self, model: Model) -> Steps:
        """Let the running requests of a model end, and give its memory back."""
        begun = self._clock()
        model.wanted, model.again_at = False, None
        cancelled = yield from self._stop_serving(model, "the model is being unloaded", UNLOADED)
        return f"model {model.name} is unloaded after {self._clock() - begun:.1f} s{_cancelled(cancelled)}"

    def _stop_serving(self, model: Model, reason: str, then: str) -> Steps:
        """Let the running requests of a model end, and unload it; returns how many requests were cancelled.

        then: its state when there are none any more.
        """
        self.set(model, DRAINING, reason)
        yield from self.pause(_NOTICE_S)
        # Triton then refuses new requests of its own clients, and lets the running ones end.
        yield from ended(self._repository.unload(model.name))
        cancelled = yield from self._drain(model.engine)
        model.lost, model.unloading = False, True
        try:
            # Until then frontends wait for requests that are in no engine yet, such as in `preprocessing`.
            yield from self._unload_steps(model.steps)
            self.set(model, then, reason if then == LOADING else None)
        finally:
            model.unloading = False
        return cancelled

    def _drain(self, engine: str) -> Steps:
        """Wait until an engine is idle, or cancel what it has when the grace time is over; returns how many those were.

        Requests that are in no engine at that moment, such as in `preprocessing`, are safe: Triton keeps every step of
        an ensemble until its running requests have ended.
        """
        end, idle, running = self._clock() + self._grace_s, 0, 0
        while idle < _IDLE_LOOKS and self._clock() < end:
            running = yield from self._running(engine)
            idle = 0 if running else idle + 1
            yield from self.pause(_POLL_S)
        if not running:
            return 0
        yield from ended(self._processes.cancel_all(engine))
        end = self._clock() + _CANCEL_S
        while (yield from self._running(engine)) and self._clock() < end:
            yield from self.pause(_POLL_S)
        return running

    def _running(self, engine: str) -> Steps:
        call = yield from ended(self._processes.requests())
        # Not known is not none.
        return 1 if call.error is not None else int(call.result.get(engine, 0))

    def _bring_up(self, model: Model, planned: Planned) -> Steps:
        """Load the next generation of steps and point the model at it; more than once if a process dies meanwhile.

        Raises OperationError if that fails; nothing has changed then.
        """
        serving = (model.planned.plan, model.generation) if model.generation else None
        for pause in (*PAUSES_S, None):
            generation = model.newest = model.newest + 1
            steps = planned.plan.steps(generation)
            try:
                yield from self.loader.load(planned.plan, generation, serving)
                break
            except OperationError as error:
                died = isinstance(error, ProcessDied)
                if died:
                    # Triton does not end the others. What its engine has started still holds the weights.
                    yield from self._kill(steps)
                self._begin(self._retire(steps))
                if pause is None or not died:
                    raise
                self._log(f"model {model.name}: {error}; loading it again in {pause:g} s")
            yield from self.pause(pause)
        model.planned, model.generation = planned, generation

    def set(self, model: Model, state: str, reason: str | None = None) -> None:
        """Change a model's state."""
        model.state, model.reason = state, reason
        self._changed()

    def _loaded(self, model: Model, begun: float) -> None:
        model.load_s = self._clock() - begun
        model.wanted, model.lost, model.failures = True, False, 0
        self.set(model, READY)

    def abandon(self, model: Model) -> Steps:
        """Unload what is left of a model that lost a process and is not loaded again."""
        steps = model.steps
        yield from ended(self._repository.unload(model.name))
        yield from self._kill(steps)
        yield from self._retire(steps)

    def _retire(self, steps: Sequence[str]) -> Steps:
        """Unload steps that nobody needs and remove their folders."""
        yield from self._unload_steps(steps)
        self._folders.remove_names(steps)

    def _unload_steps(self, steps: Sequence[str]) -> Steps:
        """Unload steps and wait until their memory is given back, that is until their processes are gone."""
        for step in steps:
            yield from ended(self._repository.unload(step))
        if not (yield from self._until_gone(steps, _GONE_S)):
            self._log(f"the processes of {', '.join(steps)} do not end by themselves: killing them")
            yield from self._kill(steps)

    def _kill(self, steps: Sequence[str]) -> Steps:
        """Kill the processes of steps: Triton does not end them after one of them has lost its own."""
        self._processes.kill(steps)
        yield from self._until_gone(steps, _KILLED_S)

    def _until_gone(self, steps: Sequence[str], limit_s: float) -> Steps:
        """Wait until no process of these steps is left; returns whether that has come within the limit."""
        end = self._clock() + limit_s
        while alive := self._processes.alive(steps):
            if self._clock() >= end:
                break
            yield from self.pause(_POLL_S)
        return not alive

    def pause(self, seconds: float) -> Steps:
        """Wait so many seconds."""
        end = self._clock() + seconds
        while self._clock() < end:
            yield


def _cancelled(count: int) -> str:
    return f"; {count} of its requests were cancelled, as the grace time was over" if count else ""
