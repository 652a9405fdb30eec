# SPDX-License-Identifier: Apache-2.0
"""The models that one tritonserver serves, and what is asked of them or happens to them while it runs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from common.files import reason
from common.model_names import POSTPROCESSING, PREPROCESSING, VIT, owner, role
from common.models_state import DRAINING, FAILED, LOADING, READY, UNLOADED, ModelState, write_states
from scripts.launcher import repository as triton
from scripts.launcher.budget import WINDOW_S, RestartBudget
from scripts.launcher.generation_loader import Repository
from scripts.launcher.lifecycle import LOST, Lifecycle, Model, Planned, Processes
from scripts.launcher.model_folders import ModelFolders
from scripts.launcher.operations import (
    APPLY,
    LIST,
    LOAD,
    RELOAD,
    UNLOAD,
    Command,
    Operation,
    OperationError,
    Operations,
    Steps,
    ended,
)
from scripts.launcher.repository import Call

# Steps that hold nothing beyond a request.
RELOADABLE = (PREPROCESSING, VIT, POSTPROCESSING)
# How often Triton is asked whether somebody else loaded or unloaded a model.
_OBSERVE_PERIOD_S = 2.0


class ServedModels:
    """The served models and what is being done to them. Only `submit` may be called from other threads.

    state_file: for the frontends. fits: says why a model cannot be loaded into the memory that is left, None if it can.
    replan: reads and checks the models again, for `apply`, beside those that serve; raises ValueError. budget: of the
    deaths of each model. grace_s: how long the running requests of a model that is unloaded may take. together: at the
    start load all models at once. log: prints a line.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
        folders: ModelFolders,
        repository: Repository,
        processes: Processes,
        *,
        state_file: Path,
        fits: Callable[[Planned], str | None],
        replan: Callable[[Sequence[Planned]], Sequence[Planned]],
        budget: RestartBudget,
        grace_s: float,
        together: bool,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models = {one.name: Model(one) for one in planned}
        self._folders = folders
        self._repository = repository
        self._processes = processes
        self._state_file = state_file
        self._replan = replan
        self._budget = budget
        self._together = together
        self._log = log
        self._clock = clock
        self._lifecycle = Lifecycle(
            folders,
            repository,
            processes,
            fits=fits,
            grace_s=grace_s,
            budget=budget,
            changed=self._publish,
            begin=self._begin,
            log=log,
            clock=clock,
        )
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._operations = Operations()
        self._observation: tuple[int, Call] | None = None
        self._observe_at = 0.0
        self._publish()

    @property
    def states(self) -> dict[str, ModelState]:
        """Every model as frontends see it."""
        return {name: model.published() for name, model in self.models.items()}

    @property
    def settled(self) -> bool:
        """Whether no model is being loaded."""
        return all(model.state != LOADING for model in self.models.values())

    def submit(self, command: Command) -> None:
        """Do this soon; may be called from any thread."""
        self._commands.put(command)

    def load_all(self) -> None:
        """Begin to load every model that is to be loaded, as soon as tritonserver answers."""
        names = [model.name for model in self.models.values() if model.wanted]
        for name in names:
            self._lifecycle.set(self.models[name], LOADING, "the model is being loaded")
        for group in [[name] for name in names] if self._together else [names]:
            self._begin(self._load_in_turn(group), group)

    def step(self) -> None:
        """Go on with what is in progress, begin what was asked for, look at what others did; returns at once."""
        while not self._commands.empty():
            self._begin_command(self._commands.get())
        self._operations.step()
        for model in list(self.models.values()):
            if model.lost and not self._operations.busy(model.name):
                self._begin(self._lifecycle.replace(model), [model.name])
            elif model.again_at is not None and self._clock() >= model.again_at and self._may_load(model):
                self._begin(self._lifecycle.restore(model), [model.name])
        self._observe()

    def _may_load(self, model: Model) -> bool:
        """Whether nothing is being done to a model, or to any if models are loaded in turn."""
        return not any(self._operations.busy(name) for name in ([model.name] if self._together else self.models))

    def load_again(self, step: str) -> None:
        """Let the load of a Triton model be tried once more if it fails now: Triton gave up its process."""
        self._lifecycle.loader.give_up(step)

    def lose(self, step: str, pid: int) -> bool:
        """Take note that a process of a Triton model has died; returns whether to load it again in its place.

        An engine takes the running requests and the weights with it: the whole model is replaced. A step that does not
        serve yet fails the load that it is part of. Nobody needs one that does not serve any more.
        """
        model = self._serving(step)
        if model is None:
            self._lifecycle.loader.lose(step, pid)
            return False
        fault = self._budget.spend(model.name)
        if fault is None:
            model.wanted = False
            died = f"its processes died {self._budget.most + 1} times within {WINDOW_S / 60:g} minutes"
            self._lifecycle.set(model, FAILED, died)
            self._log(f"model {model.name}: {died}, the last one of {step}; it is not loaded again")
            self._begin(self._lifecycle.abandon(model), [model.name])
            return False
        self._log(f"model {step} has lost a process; loading it again ({fault} of {self._budget.most})")
        if role(step) in RELOADABLE and not self._operations.busy(model.name):
            return True
        self.replace(step)
        return False

    def replace(self, step: str) -> None:
        """Replace the model of a step that cannot be loaded again in its place."""
        model = self._serving(step)
        if model is not None:
            self._lifecycle.set(model, LOADING, LOST)
            model.lost = True

    def _serving(self, step: str) -> Model | None:
        """The model that serves from this step."""
        model = self.models.get(owner(step) or step)
        serves = model is not None and step in model.steps and model.state in (READY, DRAINING) and not model.unloading
        return model if serves else None

    def server_lost(self) -> None:
        """Take note that tritonserver is gone: what was in progress ends, and what was loaded is to be loaded again."""
        self._operations.abort(OperationError("tritonserver is being restarted", 503))
        self._observation = None
        for model in self.models.values():
            model.lost, model.again_at = False, None
            if model.wanted:
                self._lifecycle.set(model, LOADING, "tritonserver is being restarted")
            elif model.state != FAILED:
                self._lifecycle.set(model, UNLOADED)

    # What was asked for

    def _begin_command(self, command: Command) -> None:
        def finish(message: str, error: OperationError | None) -> None:
            text = message if error is None else f"{command.verb} {command.name}".strip() + f": {error}"
            if command.verb != LIST:
                self._log(text)
            command.models = command.models or self._described()
            command.finish(message, error)

        try:
            steps, models = self._operation_for(command)
        except OperationError as error:
            command.finish(error=error)
            return
        self._operations.begin(Operation(steps, models, finish))

    def _operation_for(self, command: Command) -> tuple[Steps, tuple[str, ...] | None]:
        """The operation of a command, and what it changes. Raises OperationError if it cannot be begun."""
        if command.verb == LIST:
            return self._list(command), ()
        if command.verb == APPLY:
            for each in self.models.values():
                self._check_idle(each)
            return self._apply(), None
        model = self.models.get(command.name)
        if model is None:
            raise OperationError(f"there is no model '{command.name}'; known: {', '.join(self.models)}", 404)
        self._check_idle(model)
        loaded = model.state == READY
        if command.verb == LOAD and not loaded:
            restores = model.again_at is not None
            steps = self._lifecycle.restore(model) if restores else self._lifecycle.load(model, model.planned)
            return steps, (model.name,)
        if command.verb == UNLOAD and self._holds_memory(model):
            return self._lifecycle.unload(model), (model.name,)
        if command.verb == RELOAD and loaded:
            return self._lifecycle.reload(model, model.planned), (model.name,)
        hint = f"; {LOAD} it instead" if command.verb == RELOAD else ""
        problem = f"the model '{model.name}' is {model.state}: there is nothing to {command.verb}{hint}"
        raise OperationError(problem, 409)

    def _holds_memory(self, model: Model) -> bool:
        """Whether a model is loaded or is to be, or its steps are.

        An unload of the ensemble through Triton's API leaves the steps.
        """
        return model.state == READY or model.again_at is not None or self._processes.alive(model.steps)

    def _check_idle(self, model: Model) -> None:
        loading = model.state == LOADING and model.again_at is None
        if self._operations.busy(model.name) or model.lost or loading:
            raise OperationError(f"the model '{model.name}' is being changed ({model.state}); try again later", 409)

    def _begin(self, steps: Steps, models: Sequence[str] = ()) -> None:
        def finish(message: str, error: OperationError | None) -> None:
            if text := message or str(error or ""):
                self._log(text)

        self._operations.begin(Operation(steps, models, finish))

    def _list(self, command: Command) -> Steps:
        call = yield from ended(self._processes.requests())
        running = call.result if call.error is None else {}
        command.models = {
            name: {**described, "requests": running.get(described["engine"])}
            for name, described in self._described().items()
        }

    def _apply(self) -> Steps:
        """Make what is served what the file of models says now."""
        serving = [model.planned for model in self.models.values() if model.state == READY]
        call = yield from ended(Call(lambda: self._replan(serving), "replan"))
        if call.error is not None:
            raise OperationError(call.error, 400)
        wanted: dict[str, Planned] = {planned.name: planned for planned in call.result}
        done: list[str] = []
        problems: list[str] = []
        # First, as that makes room.
        for name in [name for name in self.models if name not in wanted]:
            if self._holds_memory(self.models[name]):
                yield from self._lifecycle.unload(self.models[name])
            self._folders.remove_names([name, *self.models.pop(name).steps])
            self._publish()
            done.append(f"unloaded {name}")
        for name, planned in wanted.items():
            try:
                if verb := (yield from self._apply_to(name, planned)):
                    done.append(f"{verb} {name}")
            except OperationError as error:
                problems.append(str(error))
        # In the order of the file.
        self.models = {name: self.models[name] for name in wanted}
        self._publish()
        text = ", ".join(done) or "nothing had changed"
        if problems:
            raise OperationError("; ".join([*problems, *done]))
        return f"applied: {text}"

    def _apply_to(self, name: str, planned: Planned) -> Steps:
        """Make one model what it is to be; returns what was done, None if nothing."""
        model = self.models.get(name)
        if model is not None and model.state == UNLOADED:
            # As it was: somebody unloaded it.
            model.planned = planned
            return None
        if model is not None and model.planned.spec == planned.spec and model.state != FAILED:
            return None
        if model is not None and model.state == READY:
            yield from self._lifecycle.reload(model, planned)
            return "reloaded"
        model = model or self.models.setdefault(name, Model(planned))
        yield from self._lifecycle.load(model, planned)
        return "loaded"

    def _load_in_turn(self, names: list[str]) -> Steps:
        """Load one after the other. Those that are done are taken from the list: they are not busy any more."""
        yield from self._lifecycle.until_live()
        while names:
            model = self.models[names[0]]
            try:
                # What served before a restart is not wrong for good: it is tried more than once.
                served = model.generation > 0
                load = self._lifecycle.restore(model) if served else self._lifecycle.load(model, model.planned)
                self._log((yield from load))
            except OperationError as error:
                self._log(str(error))
            del names[0]

    # What others do, and what others see

    def _observe(self) -> None:
        """Notice that somebody loaded or unloaded a model through Triton's own API, which is no fault.

        On the way the processes that the models have are recorded.
        """
        if self._observation is None:
            if self._clock() >= self._observe_at:
                self._processes.record()
                self._observation = self._operations.count, self._repository.index()
            return
        before, call = self._observation
        if not call.done:
            return
        self._observation, self._observe_at = None, self._clock() + _OBSERVE_PERIOD_S
        if call.error is not None or before != self._operations.count:
            return
        for model in self.models.values():
            ready = call.result.get(model.name) == triton.READY
            changing = self._operations.busy(model.name) or model.lost or model.again_at is not None
            if changing or ready == (model.state == READY):
                continue
            model.wanted = ready
            done = f"{'' if ready else 'un'}loaded through Triton's repository API"
            self._lifecycle.set(model, READY if ready else UNLOADED, None if ready else done)
            self._log(f"model {model.name} was {done}")

    def _described(self) -> dict[str, dict[str, Any]]:
        return {name: model.described() for name, model in self.models.items()}

    def _publish(self) -> None:
        try:
            write_states(self._state_file, self.states)
        except OSError as error:
            # Such as a full disk. Frontends keep to what they know until the next change.
            self._log(f"the models' states could not be written: {reason(error)}")
