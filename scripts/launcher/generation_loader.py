# SPDX-License-Identifier: Apache-2.0
"""Load a generation of a model's steps into a running tritonserver, and let its ensemble serve from them.

A process may die, or be given up by Triton, while its model loads or after that, before anything serves from it.
"""

from collections.abc import Callable, Generator
from typing import Protocol

from common.files import reason
from scripts.launcher.errors import LaunchError
from scripts.launcher.model_folders import ModelFolders, ModelPlan
from scripts.launcher.operations import OperationError, Steps, ended
from scripts.launcher.repository import Call
from scripts.launcher.start_retries import PAUSES_S, gave_up


class Repository(Protocol):
    """What Triton's model repository API does; see scripts/launcher/repository.py."""

    def load(self, model: str) -> Call:
        """Begin to load a Triton model."""

    def unload(self, model: str) -> Call:
        """Begin to unload a Triton model."""

    def index(self) -> Call:
        """Ask for the state of every Triton model by name."""


class ProcessDied(OperationError):
    """A process died after its step was loaded, before the model served. Nothing is wrong with the model."""


class GenerationLoader:
    """Loads generations of steps.

    processes: returns the ids of tritonserver's processes, dead ones included. pause: waits so many seconds. log:
    prints a line.
    """

    def __init__(
        self,
        folders: ModelFolders,
        repository: Repository,
        processes: Callable[[], set[int]],
        pause: Callable[[float], Steps],
        log: Callable[[str], None],
    ) -> None:
        self._folders = folders
        self._repository = repository
        self._processes = processes
        self._pause = pause
        self._log = log
        # Triton models whose process was killed while it loaded, without a fault of its own.
        self._given_up: set[str] = set()
        # Steps that are being loaded, or that nothing serves from yet; and those of them that have lost a process.
        self._loading: set[str] = set()
        self._died: set[str] = set()
        # Of steps that are loaded once more: the processes that there were before. One may be found dead much later.
        self._earlier: dict[str, set[int]] = {}

    def give_up(self, step: str) -> None:
        """Let the load of a Triton model be tried once more if it fails now: Triton gave up its process."""
        self._given_up.add(step)

    def lose(self, step: str, pid: int) -> None:
        """Take note that a process of a Triton model has died from which nothing serves yet."""
        if step in self._loading and pid not in self._earlier.get(step, ()):
            self._died.add(step)

    def load(self, plan: ModelPlan, generation: int, serving: tuple[ModelPlan, int] | None) -> Steps:
        """Load the steps, then the ensemble on them. serving: what the ensemble stands on now, if anything.

        Raises OperationError if that fails, as ProcessDied if a process died; `serving` serves as before then.
        """
        steps = {*plan.steps(generation)}
        self._given_up -= {*steps, plan.name}
        self._died -= steps
        self._loading |= steps
        try:
            yield from self._load_steps(plan, generation)
            self._check_alive(steps)
            yield from self._point(plan, generation, serving)
            try:
                self._check_alive(steps)
            except ProcessDied:
                yield from self._point_back(plan, serving)
                raise
        finally:
            self._loading -= steps
            for step in (*steps, plan.name):
                self._earlier.pop(step, None)

    def _load_steps(self, plan: ModelPlan, generation: int) -> Steps:
        _write(self._folders.write_steps, plan, generation)
        calls = {step: self._repository.load(step) for step in plan.steps(generation)}
        for step, call in calls.items():
            calls[step] = yield from self._ended_load(step, call)
        for step, call in calls.items():
            if call.error:
                raise OperationError(f"{step}: {short_reason(call.error)}")

    def _point(self, plan: ModelPlan, generation: int, serving: tuple[ModelPlan, int] | None) -> Steps:
        _write(self._folders.point, plan, generation)
        call = yield from self._ended_load(plan.name, self._repository.load(plan.name))
        if call.error:
            if serving is not None:
                _write(self._folders.point, *serving)
            raise OperationError(short_reason(call.error))

    def _point_back(self, plan: ModelPlan, serving: tuple[ModelPlan, int] | None) -> Steps:
        """Take the ensemble from steps that have died."""
        if serving is None:
            yield from ended(self._repository.unload(plan.name))
        else:
            _write(self._folders.point, *serving)
            yield from ended(self._repository.load(plan.name))

    def _check_alive(self, steps: set[str]) -> None:
        if died := sorted(self._died & steps):
            raise ProcessDied(f"a process of {died[0]} died before the model served")

    def _ended_load(self, name: str, call: Call) -> Generator[None, None, Call]:
        """Wait for a load, and for more of them while Triton gives up its process; returns the last one."""
        yield from ended(call)
        for pause in PAUSES_S:
            if not call.error or not (gave_up(call.error) or name in self._given_up):
                break
            self._given_up.discard(name)
            self._log(
                f"tritonserver took a process of {name} for dead while it loaded; loading it again in {pause:g} s"
            )
            yield from self._pause(pause)
            # The next load has a process of its own.
            self._died.discard(name)
            self._earlier[name] = self._processes()
            yield from ended(call := self._repository.load(name))
        return call


def short_reason(error: str) -> str:
    """The part of Triton's message that says what was wrong with a load, without the place in the code."""
    first = error.partition("\n\nAt:")[0].strip(" ;\n")
    return first.rpartition("state: Internal: ")[2] or first


def _write(write: Callable[[ModelPlan, int], None], plan: ModelPlan, generation: int) -> None:
    """Write folders of a model; raises OperationError if that fails."""
    try:
        write(plan, generation)
    except (OSError, LaunchError) as error:
        raise OperationError(f"its folders could not be written: {reason(error)}") from error
