# SPDX-License-Identifier: Apache-2.0
"""Models are loaded, drained, reloaded and replaced beside others, which notice nothing."""

import itertools
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from common.model_names import STEPS, step
from common.models_state import DRAINING, FAILED, LOADING, READY, UNLOADED, read_states
from common.served_model import EMBEDDING, ServedModelInfo
from scripts.launcher.budget import RestartBudget
from scripts.launcher.generation_loader import short_reason
from scripts.launcher.model_folders import ModelFolders, ModelPlan
from scripts.launcher.models import ServedModels
from scripts.launcher.operations import APPLY, LIST, LOAD, RELOAD, UNLOAD, Command

ROOT = Path(__file__).parents[4]
GRACE_S = 20.0


@dataclass(frozen=True)
class Planned:
    """A model as the planner gives it. spec: changes when the operator's entry does."""

    name: str
    spec: str = "as it was"
    embedding: bool = False

    @property
    def plan(self) -> ModelPlan:
        kind = {"kind": EMBEDDING} if self.embedding else {}
        info = ServedModelInfo(names=(self.name,), **kind)
        return ModelPlan(name=self.name, repository=ROOT / "model_repository", variables={}, info=info)


@dataclass
class Answer:
    """A call that has ended, or one that a test ends."""

    error: str | None = None
    result: Any = None
    done: bool = True


class FakeFolders(ModelFolders):
    """The folders, of which only the names are needed."""

    def __init__(self) -> None:
        self.present: set[str] = set()
        self.points: dict[str, int] = {}

    def write_steps(self, plan: ModelPlan, generation: int) -> None:
        self.present.update(plan.steps(generation))

    def point(self, plan: ModelPlan, generation: int) -> None:
        self.present.add(plan.name)
        self.points[plan.name] = generation

    def remove_names(self, names: Iterable[str]) -> None:
        self.present -= set(names)


class FakeTriton:
    """Triton's repository API and its processes.

    fails: reasons, by Triton model. slow: loads that do not end. hang: processes that do not end when unloaded.
    """

    def __init__(self, folders: FakeFolders) -> None:
        self._folders = folders
        self.calls: list[str] = []
        self.ready: set[str] = set()
        self.running: dict[str, float] = {}
        self.fails: dict[str, str] = {}
        self.slow: dict[str, Answer] = {}
        self.hang: set[str] = set()
        self.killed: list[str] = []
        self.cancelled: list[str] = []
        self.lives = True
        self.pids: list[int] = []

    def load(self, model: str) -> Answer:
        self.calls.append(f"load {model}")
        if model in self.slow:
            return self.slow[model]
        if model in self.fails:
            self.ready.discard(model)
            return Answer(self.fails[model])
        assert model in self._folders.present, f"{model} has no folder"
        self.ready.add(model)
        return Answer()

    def unload(self, model: str) -> Answer:
        self.calls.append(f"unload {model}")
        if model not in self.hang:
            self.ready.discard(model)
        return Answer()

    def index(self) -> Answer:
        return Answer(result=dict.fromkeys(self.ready, "READY"))

    def live(self) -> Answer:
        return Answer(result=self.lives)

    def requests(self) -> Answer:
        return Answer(result=dict(self.running))

    def cancel_all(self, engine: str) -> Answer:
        self.cancelled.append(engine)
        self.running.pop(engine, None)
        return Answer()

    def children(self) -> set[int]:
        return set(self.pids)

    def record(self) -> None: ...

    def alive(self, models: Collection[str]) -> bool:
        return bool(self.ready & set(models))

    def kill(self, models: Collection[str]) -> None:
        self.killed += sorted(self.ready & set(models))
        self.ready -= set(models)


@dataclass
class Bench:
    """Two models on a fake Triton, and a clock that runs when the models are stepped."""

    folder: Path
    planned: list[Planned] = field(default_factory=lambda: [Planned("one"), Planned("two")])
    restarts: int = 3
    together: bool = True
    now: float = 0.0
    problem: Callable[[], str | None] = lambda: None
    unusable: str | None = None
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folders = FakeFolders()
        self.triton = FakeTriton(self.folders)
        self.file = self.folder / "models.json"
        self.history: list[tuple[str, str]] = []
        # What served when the file was read again.
        self.serving: list[str] = []
        self.models = ServedModels(
            self.planned,
            self.folders,
            self.triton,
            self.triton,
            state_file=self.file,
            fits=lambda planned: self.problem(),
            replan=self._replan,
            budget=RestartBudget(self.restarts),
            grace_s=GRACE_S,
            together=self.together,
            log=self.lines.append,
            clock=lambda: self.now,
        )

    def step_until(self, condition: Callable[[], bool], seconds: float = 300.0) -> None:
        end = self.now + seconds
        while not condition():
            assert self.now < end, (self.states(), self.lines, self.triton.calls[-5:])
            self.models.step()
            for name, state in self.states().items():
                if (name, state) not in self.history[-2:]:
                    self.history.append((name, state))
            self.now += 0.1
            time.sleep(0.0005)

    def _replan(self, serving: Sequence[Any]) -> list[Planned]:
        self.serving = [one.name for one in serving]
        if self.unusable is not None:
            raise ValueError(self.unusable)
        return self.planned

    def states(self) -> dict[str, str]:
        return {name: model.state for name, model in read_states(self.file).items()}

    def do(self, verb: str, name: str = "") -> Command:
        command = Command(verb, name)
        self.models.submit(command)
        self.step_until(lambda: command.wait(0))
        return command

    def lose(self, step: str, pid: int = 7) -> bool:
        return self.models.lose(step, pid)

    def settle(self, seconds: float = 10.0) -> None:
        end = self.now + seconds
        self.step_until(lambda: self.now >= end)

    def steps(self, name: str, generation: int = 1) -> set[str]:
        return {step(name, role, generation) for role in STEPS}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path)
    made.models.load_all()
    made.step_until(lambda: made.models.settled)
    assert made.states() == {"one": READY, "two": READY}
    return made


def test_the_steps_are_loaded_before_the_ensemble(bench: Bench) -> None:
    loads = [call.removeprefix("load ") for call in bench.triton.calls if call.split()[1].startswith("one")]
    assert set(loads[:4]) == bench.steps("one") and loads[4:] == ["one"]
    assert read_states(bench.file)["one"].engine == "one.tensorrt_llm"


def test_nothing_is_loaded_before_tritonserver_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.triton.lives = False
    bench.models.load_all()
    bench.settle()
    assert bench.triton.calls == [] and bench.states() == {"one": LOADING, "two": LOADING}
    bench.triton.lives = True
    bench.step_until(lambda: bench.models.settled)
    assert set(bench.states().values()) == {READY}


def test_a_model_that_cannot_be_loaded_leaves_the_others_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.triton.fails["one.tensorrt_llm"] = (
        "load failed for model 'one.tensorrt_llm': version 1 is at UNAVAILABLE state: Internal: ValueError: no such "
        "engine\n\nAt:\n  somewhere.py(21): build"
    )
    bench.models.load_all()
    bench.step_until(lambda: bench.models.settled)
    bench.settle()
    assert bench.states() == {"one": FAILED, "two": READY}
    assert read_states(bench.file)["one"].reason == "one.tensorrt_llm: ValueError: no such engine"
    assert "load one" not in bench.triton.calls and not bench.triton.ready & bench.steps("one"), "nothing stays loaded"
    del bench.triton.fails["one.tensorrt_llm"]
    assert bench.do(LOAD, "one").error is None
    assert bench.states() == {"one": READY, "two": READY}
    assert read_states(bench.file)["one"].engine == "one.g2.tensorrt_llm"


def test_unloading_waits_for_running_requests(bench: Bench) -> None:
    bench.triton.running["one.tensorrt_llm"] = 2
    command = Command(UNLOAD, "one")
    bench.models.submit(command)
    bench.settle(5)
    assert bench.states() == {"one": DRAINING, "two": READY} and read_states(bench.file)["one"].retry_after
    assert "unload one" in bench.triton.calls, "Triton's own clients are refused"
    assert bench.steps("one") <= bench.triton.ready
    bench.triton.running.clear()
    bench.step_until(lambda: command.wait(0))
    assert command.error is None and bench.triton.cancelled == [] and not bench.triton.ready & bench.steps("one")
    assert bench.states() == {"one": UNLOADED, "two": READY}
    assert bench.steps("two") <= bench.triton.ready


def test_requests_are_cancelled_when_the_grace_time_is_over(bench: Bench) -> None:
    bench.triton.running["one.tensorrt_llm"] = 2
    begun = bench.now
    command = bench.do(UNLOAD, "one")
    assert bench.triton.cancelled == ["one.tensorrt_llm"] and "2 of its requests were cancelled" in command.message
    assert GRACE_S <= bench.now - begun < GRACE_S + 10


def test_a_reload_beside_has_no_gap(bench: Bench) -> None:
    bench.triton.running["one.tensorrt_llm"] = 1
    bench.history.clear()
    command = Command(RELOAD, "one")
    bench.models.submit(command)
    bench.step_until(lambda: bench.folders.points["one"] == 2)
    bench.settle(3)
    assert read_states(bench.file)["one"].engine == "one.g2.tensorrt_llm"
    assert bench.steps("one") <= bench.triton.ready, "they have a request still"
    bench.triton.running.clear()
    bench.step_until(lambda: command.wait(0))
    assert command.error is None and "without a gap" in command.message
    assert {state for name, state in bench.history if name == "one"} == {READY}
    assert not (bench.triton.ready | bench.folders.present) & bench.steps("one")


def test_a_reload_that_fails_leaves_what_served(bench: Bench) -> None:
    bench.triton.fails["one.g2.vit"] = "no such tower"
    bench.history.clear()
    command = bench.do(RELOAD, "one")
    bench.settle()
    assert command.error is not None and "no such tower" in str(command.error) and "as before" in str(command.error)
    assert {state for name, state in bench.history if name == "one"} == {READY}
    assert bench.steps("one") <= bench.triton.ready and not bench.triton.ready & bench.steps("one", 2)
    assert bench.folders.points["one"] == 1


def test_an_ensemble_that_cannot_be_switched_points_back(bench: Bench) -> None:
    bench.triton.fails["one"] = "no"
    assert bench.do(RELOAD, "one").error is not None
    assert bench.folders.points["one"] == 1


def test_a_reload_without_memory_for_two_has_an_honest_gap(bench: Bench) -> None:
    without_memory_for_two(bench)
    bench.history.clear()
    command = bench.do(RELOAD, "one")
    assert command.error is None and "it took no requests for" in command.message
    assert next(state for name, state in bench.history if name == "one") == DRAINING
    calls = bench.triton.calls
    assert calls.index("unload one.tensorrt_llm") < calls.index("load one.g2.tensorrt_llm")
    assert bench.states() == {"one": READY, "two": READY}


def without_memory_for_two(bench: Bench) -> None:
    bench.problem = lambda: "no memory for both" if bench.steps("one") & bench.triton.ready else None


def test_what_served_before_a_failed_reload_without_memory_for_two_is_loaded_again(bench: Bench) -> None:
    without_memory_for_two(bench)
    bench.triton.fails["one.g2.tensorrt_llm"] = "no such engine"
    bench.planned[0] = Planned("one", spec="larger")
    error = bench.do(APPLY).error
    assert error is not None and "no such engine. It serves as before" in str(error)
    assert bench.states() == {"one": READY, "two": READY}
    model = bench.models.models["one"]
    assert (model.planned.spec, model.wanted, model.generation) == ("as it was", True, 3)
    assert bench.steps("one", 3) <= bench.triton.ready


def test_a_reload_without_memory_for_two_is_tried_again(bench: Bench) -> None:
    """As when the memory of the old one is given back late."""
    without_memory_for_two(bench)
    bench.triton.fails["one.g2.tensorrt_llm"] = "no memory"
    error = bench.do(RELOAD, "one").error
    assert error is not None and "loading it again in" in str(error)
    bench.step_until(lambda: bench.states()["one"] == READY)
    assert bench.steps("one", 3) <= bench.triton.ready


def test_what_served_before_a_failed_reload_is_given_up_at_last(bench: Bench) -> None:
    without_memory_for_two(bench)
    fail_from(bench, 2)
    bench.planned[0] = Planned("one", spec="larger")
    error = bench.do(APPLY).error
    assert error is not None and str(error).count("its process ended") == 2
    bench.step_until(lambda: bench.states()["one"] == FAILED)


def test_what_cannot_be_done_is_refused(bench: Bench) -> None:
    for verb, name, status in ((LOAD, "one", 409), (LOAD, "three", 404), (UNLOAD, "three", 404)):
        command = bench.do(verb, name)
        assert command.error is not None and command.error.status == status
    assert bench.do(UNLOAD, "one").error is None
    again = bench.do(UNLOAD, "one")
    assert again.error is not None and again.error.status == 409
    bench.problem = lambda: "8 GiB are free, 16 are needed"
    refused = bench.do(LOAD, "one")
    assert refused.error is not None and "8 GiB are free" in str(refused.error)


def test_a_failed_model_is_loaded_not_reloaded(bench: Bench) -> None:
    bench.do(UNLOAD, "one")
    error = bench.do(RELOAD, "one").error
    assert error is not None and error.status == 409 and str(error).endswith("nothing to reload; load it instead")


def test_one_operation_at_a_time_on_a_model(bench: Bench) -> None:
    bench.triton.slow["one.g2.vit"] = Answer(done=False)
    first, other = Command(RELOAD, "one"), Command(UNLOAD, "two")
    bench.models.submit(first)
    bench.settle(1)
    refused = bench.do(UNLOAD, "one")
    assert refused.error is not None and refused.error.status == 409
    assert bench.do(APPLY).error is not None
    bench.models.submit(other)
    bench.step_until(lambda: other.wait(0))
    assert other.error is None and not first.wait(0)


def test_an_engine_that_died_is_replaced_beside_the_others(bench: Bench) -> None:
    bench.triton.hang = bench.steps("one")
    before = len(bench.triton.calls)
    assert bench.lose("one.tensorrt_llm") is False
    assert bench.states() == {"one": LOADING, "two": READY}
    bench.step_until(lambda: bench.states()["one"] == READY)
    bench.settle()
    assert read_states(bench.file)["one"].engine == "one.g2.tensorrt_llm"
    assert set(bench.triton.killed) == bench.steps("one"), "Triton never ends what waits for the dead one"
    assert not any("two" in call for call in bench.triton.calls[before:])


def test_steps_without_state_are_loaded_again_in_their_place(bench: Bench) -> None:
    assert [bench.lose(f"one.{role}") for role in ("preprocessing", "vit", "postprocessing")] == [True] * 3
    assert bench.states()["one"] == READY
    bench.models.replace("one.vit")
    bench.step_until(lambda: bench.states()["one"] == READY)
    assert bench.folders.points["one"] == 2


def test_deaths_that_concern_nobody(bench: Bench) -> None:
    bench.do(RELOAD, "one")
    bench.do(UNLOAD, "two")
    calls = len(bench.triton.calls)
    for gone in ("one.tensorrt_llm", "two.tensorrt_llm", "two", "three.vit", "unknown", "one.g9.vit"):
        assert bench.lose(gone) is False
    bench.settle(1)
    assert len(bench.triton.calls) == calls and bench.states() == {"one": READY, "two": UNLOADED}


@pytest.mark.parametrize("pending", ["one.tensorrt_llm", "one"])
def test_a_step_that_dies_before_its_model_serves_is_loaded_again(tmp_path: Path, pending: str) -> None:
    """Triton takes the step for loaded still, and would load the ensemble on it. pending: what loads meanwhile."""
    bench = Bench(tmp_path)
    loading = bench.triton.slow[pending] = Answer(done=False)
    bench.models.load_all()
    bench.step_until(lambda: f"load {pending}" in bench.triton.calls)
    assert bench.lose("one.vit") is False
    bench.triton.ready |= {pending}
    bench.triton.slow.clear()
    loading.done = True
    bench.step_until(lambda: bench.models.settled)
    bench.settle()
    assert bench.states() == {"one": READY, "two": READY}
    assert bench.folders.points["one"] == 2 and not bench.triton.ready & bench.steps("one")
    assert "model one: a process of one.vit died before the model served; loading it again in 1 s" in bench.lines


@pytest.mark.parametrize(("dead", "generation"), [(7, 1), (8, 2)])
def test_a_process_of_an_earlier_load_is_found_dead_late(tmp_path: Path, dead: int, generation: int) -> None:
    """Only the death of a process that the last load has started fails it. dead: 7 is of the first load, 8 of this."""
    bench = Bench(tmp_path)
    loading = bench.triton.slow["one"] = Answer(done=False)
    bench.triton.fails["one.vit"] = "Stub process 'one.vit_0_0' is not healthy."
    bench.triton.pids = [7]
    bench.models.load_all()
    bench.step_until(lambda: "load one.vit" in bench.triton.calls)
    bench.triton.fails.clear()
    bench.step_until(lambda: "load one" in bench.triton.calls)
    bench.triton.pids = [7, 8]
    bench.lose("one.vit", dead)
    bench.triton.slow.clear()
    loading.done = True
    bench.step_until(lambda: bench.models.settled)
    assert bench.states()["one"] == READY and bench.folders.points["one"] == generation
    assert bench.triton.calls.count("load one.vit") == 2


@pytest.mark.parametrize("pending", ["one.g2.tensorrt_llm", "one"])
def test_the_old_steps_serve_until_new_ones_live(bench: Bench, pending: str) -> None:
    loading = bench.triton.slow[pending] = Answer(done=False)
    command, before = Command(RELOAD, "one"), len(bench.triton.calls)
    bench.models.submit(command)
    bench.step_until(lambda: f"load {pending}" in bench.triton.calls[before:])
    bench.lose("one.g2.postprocessing")
    bench.triton.slow.clear()
    loading.done = True
    bench.step_until(lambda: any("died" in line for line in bench.lines))
    assert bench.folders.points["one"] == 1 and bench.states()["one"] == READY
    bench.step_until(lambda: command.wait(0))
    bench.settle()
    assert command.error is None and bench.folders.points["one"] == 3


def test_a_step_that_dies_at_every_load_fails_its_model(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for generation in range(1, 9):
        bench.triton.slow[step("one", "tensorrt_llm", generation)] = Answer(done=False)
    bench.models.load_all()
    for generation in range(1, 5):
        name = step("one", "tensorrt_llm", generation)
        bench.step_until(lambda name=name: f"load {name}" in bench.triton.calls)
        bench.lose(step("one", "vit", generation))
        bench.triton.slow[name].done = True
    bench.step_until(lambda: bench.models.settled)
    assert bench.states() == {"one": FAILED, "two": READY}
    assert "a process of one.g4.vit died before the model served" in str(read_states(bench.file)["one"].reason)


def test_a_model_in_a_crash_loop_fails_alone(bench: Bench) -> None:
    for fault in range(bench.restarts):
        bench.lose(step("one", "tensorrt_llm", fault + 1))
        bench.step_until(lambda: bench.states()["one"] == READY)
    bench.lose(step("one", "tensorrt_llm", bench.restarts + 1))
    bench.settle(60)
    assert bench.states() == {"one": FAILED, "two": READY}
    assert "died 4 times within 15 minutes" in str(read_states(bench.file)["one"].reason)
    assert not bench.triton.ready & {"one", *bench.steps("one", bench.restarts + 1)}


def test_a_replacement_that_cannot_be_loaded_is_tried_again_and_given_up(bench: Bench) -> None:
    bench.triton.fails |= {f"one.g{generation}.tensorrt_llm": "no memory" for generation in range(2, 9)}
    bench.lose("one.tensorrt_llm")
    bench.settle(60)
    assert bench.states() == {"one": FAILED, "two": READY} and "one" not in bench.triton.ready
    assert sum(call.endswith("tensorrt_llm") and call.startswith("load one.g") for call in bench.triton.calls) == 3


def lose_tritonserver(bench: Bench) -> None:
    bench.models.server_lost()
    bench.triton.ready.clear()
    bench.models.load_all()


def tries(bench: Bench, name: str = "one") -> int:
    return sum(call.startswith(f"load {name}.") and call.endswith("tensorrt_llm") for call in bench.triton.calls)


def fail_from(bench: Bench, generation: int) -> None:
    names = [step("one", "tensorrt_llm", number) for number in range(generation, 30)]
    bench.triton.fails = dict.fromkeys(names, "its process ended")


def test_tritonserver_is_lost_between_two_tries_of_a_replacement(bench: Bench) -> None:
    fail_from(bench, 2)
    bench.lose("one.tensorrt_llm")
    bench.step_until(lambda: any("loading it again in 1 s" in line for line in bench.lines))
    bench.triton.fails.clear()
    lose_tritonserver(bench)
    bench.step_until(lambda: bench.models.settled)
    assert bench.states() == {"one": READY, "two": READY}


@pytest.mark.parametrize("together", [True, False])
def test_a_load_that_fails_after_a_restart_of_tritonserver_is_tried_again(tmp_path: Path, together: bool) -> None:
    bench = Bench(tmp_path, restarts=9, together=together)
    bench.models.load_all()
    bench.step_until(lambda: bench.models.settled)
    fail_from(bench, 2)
    lose_tritonserver(bench)
    begun: list[float] = []
    for count in range(1, 7):
        bench.step_until(lambda count=count: tries(bench) == 1 + count)
        begun.append(bench.now)
        bench.settle(0.5)
        assert bench.states()["one"] == LOADING and read_states(bench.file)["one"].retry_after
    pauses = [after - before for before, after in itertools.pairwise(begun)]
    assert all(wanted <= pause < wanted + 2 for wanted, pause in zip([1, 4, 15, 60, 60], pauses, strict=True)), pauses
    assert bench.states()["two"] == READY and tries(bench, "two") == 2
    bench.triton.fails.clear()
    bench.step_until(lambda: bench.models.settled)
    assert bench.states() == {"one": READY, "two": READY}
    fail_from(bench, 8)
    lose_tritonserver(bench)
    bench.settle(3)
    assert tries(bench) == 10, "the pauses start again"


def test_the_tries_after_a_restart_of_tritonserver_have_an_end(bench: Bench) -> None:
    fail_from(bench, 2)
    lose_tritonserver(bench)
    bench.settle(200)
    assert bench.states() == {"one": FAILED, "two": READY} and tries(bench) == 1 + 1 + bench.restarts
    assert read_states(bench.file)["one"].reason == "one.g5.tensorrt_llm: its process ended"
    lose_tritonserver(bench)
    bench.settle(100)
    assert bench.states() == {"one": FAILED, "two": READY}


def test_a_first_load_that_fails_is_not_tried_again_after_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    fail_from(bench, 1)
    bench.models.load_all()
    bench.step_until(lambda: bench.models.settled)
    lose_tritonserver(bench)
    bench.settle(100)
    assert bench.states() == {"one": FAILED, "two": READY} and tries(bench) == 1


@pytest.mark.parametrize("lost", ["process", "tritonserver"])
def test_operators_decide_between_two_tries(bench: Bench, lost: str) -> None:
    fail_from(bench, 2)
    if lost == "process":
        bench.lose("one.tensorrt_llm")
    else:
        lose_tritonserver(bench)
    bench.step_until(lambda: any("loading it again in 4 s" in line for line in bench.lines))
    refused = bench.do(RELOAD, "one")
    assert refused.error is not None and refused.error.status == 409
    tried = tries(bench)
    if lost == "process":
        bench.triton.ready.add("one")
        bench.settle(2.5)
        assert bench.states()["one"] == LOADING, "Triton takes the ensemble for ready though its steps are gone"
    assert bench.do(UNLOAD, "one").error is None
    bench.settle(100)
    lose_tritonserver(bench)
    bench.step_until(lambda: bench.models.settled)
    assert bench.states() == {"one": UNLOADED, "two": READY} and tries(bench) == tried


def test_what_is_tried_again_may_be_loaded_or_changed_at_once(bench: Bench) -> None:
    fail_from(bench, 2)
    lose_tritonserver(bench)
    bench.step_until(lambda: any("loading it again in 1 s" in line for line in bench.lines))
    assert bench.do(APPLY).message == "applied: nothing had changed"
    failed = bench.do(LOAD, "one")
    assert failed.error is not None and "loading it again in" in str(failed.error)
    bench.triton.fails.clear()
    bench.planned[0] = Planned("one", "changed")
    assert bench.do(APPLY).message == "applied: loaded one"
    assert bench.states() == {"one": READY, "two": READY}
    bench.settle(30)
    assert tries(bench) == 4


def test_a_death_while_it_is_reloaded(bench: Bench) -> None:
    bench.triton.slow["one.g2.vit"] = slow = Answer(done=False)
    command = Command(RELOAD, "one")
    bench.models.submit(command)
    bench.settle(1)
    bench.lose("one.tensorrt_llm")
    assert bench.states()["one"] == LOADING
    slow.error, slow.done = "it failed too", True
    bench.step_until(lambda: bench.states()["one"] == READY)
    assert command.error is not None and "as before" not in str(command.error)
    assert bench.folders.points["one"] == 3


def test_a_new_tritonserver_gets_what_was_loaded(bench: Bench) -> None:
    bench.do(UNLOAD, "two")
    bench.triton.slow["one.g2.vit"] = Answer(done=False)
    command = Command(RELOAD, "one")
    bench.models.submit(command)
    bench.settle(1)
    bench.models.server_lost()
    assert command.error is not None and command.error.status == 503
    refused = bench.do(RELOAD, "one")
    assert refused.error is not None and refused.error.status == 409
    assert bench.states() == {"one": LOADING, "two": UNLOADED}
    bench.triton.ready.clear()
    bench.triton.slow.clear()
    bench.models.load_all()
    bench.step_until(lambda: bench.models.settled)
    bench.settle()
    assert bench.states() == {"one": READY, "two": UNLOADED}


def test_processes_that_end_because_their_model_is_unloaded_are_not_lost(bench: Bench) -> None:
    """On a busy machine Triton takes a while to take note of their end."""
    bench.triton.hang = set(bench.steps("one"))
    command = Command(UNLOAD, "one")
    bench.models.submit(command)
    bench.step_until(lambda: "unload one.vit" in bench.triton.calls)
    for name in bench.steps("one"):
        assert not bench.lose(name)
    bench.triton.ready -= bench.triton.hang
    bench.step_until(lambda: command.wait(0))
    bench.settle()
    assert command.error is None and bench.states() == {"one": UNLOADED, "two": READY}
    assert not any("lost" in line for line in bench.lines)


def test_tritonserver_is_lost_while_a_model_is_unloaded(bench: Bench) -> None:
    bench.triton.running["one.tensorrt_llm"] = 1
    bench.models.submit(Command(UNLOAD, "one"))
    bench.settle(3)
    bench.models.server_lost()
    assert bench.states() == {"one": UNLOADED, "two": LOADING}


def test_what_others_load_and_unload_is_no_fault(bench: Bench) -> None:
    bench.triton.ready.discard("one")
    bench.step_until(lambda: bench.states()["one"] == UNLOADED)
    assert "Triton's repository API" in str(read_states(bench.file)["one"].reason)
    bench.triton.ready.add("one")
    bench.step_until(lambda: bench.states()["one"] == READY)
    assert not any("died" in line for line in bench.lines)
    for verb in (LOAD, UNLOAD):
        bench.triton.ready.discard("one")
        bench.step_until(lambda: bench.states()["one"] == UNLOADED)
        left = bench.triton.ready - {"two", *bench.steps("two")}
        assert bench.do(verb, "one").error is None and left and not bench.triton.ready & left, "its steps are gone"
        assert bench.states()["one"] == (READY if verb == LOAD else UNLOADED)


def test_steps_that_others_left_are_unloaded_with_a_model_that_is_gone_from_the_file(bench: Bench) -> None:
    bench.triton.ready.discard("one")
    bench.step_until(lambda: bench.states()["one"] == UNLOADED)
    bench.planned[:] = [Planned("two")]
    assert bench.do(APPLY).message == "applied: unloaded one"
    assert bench.triton.ready == {"two", *bench.steps("two")} and bench.states() == {"two": READY}


@pytest.mark.parametrize("error", ["Stub process '{}_0_0' is not healthy.;", "Failed to obtain the health mutex.;"])
def test_a_load_whose_process_triton_gave_up_is_tried_three_more_times(bench: Bench, error: str) -> None:
    bench.do(UNLOAD, "one")
    step = "one.g2.preprocessing"
    for again in (False, True):
        hanging = bench.triton.slow[step] = Answer(done=False)
        command = Command(LOAD, "one")
        bench.models.submit(command)
        bench.settle(5)
        assert bench.states()["one"] == LOADING
        if again:
            del bench.triton.slow[step]
        hanging.error, hanging.done = error.format(step), True
        bench.step_until(lambda command=command: command.wait(0))
        assert (command.error is None) == again
        reason = read_states(bench.file)["one"].reason
        assert reason == (None if again else f"{step}: {error.format(step)}".rstrip(";"))
        assert bench.triton.calls.count(f"load {step}") == (2 if again else 4)
        step = "one.g3.preprocessing"


def test_a_load_that_failed_when_its_process_was_killed_is_tried_again(bench: Bench) -> None:
    bench.do(UNLOAD, "one")
    step = "one.g2.preprocessing"
    hanging = bench.triton.slow[step] = Answer(done=False)
    command = Command(LOAD, "one")
    bench.models.submit(command)
    bench.settle(5)
    bench.models.load_again(step)
    del bench.triton.slow[step]
    hanging.error, hanging.done = "whatever Triton says then", True
    bench.step_until(lambda: command.wait(0))
    assert command.error is None and bench.triton.calls.count(f"load {step}") == 2


def test_a_changed_file_is_applied(bench: Bench) -> None:
    assert bench.do(APPLY).message == "applied: nothing had changed"
    calls = len(bench.triton.calls)
    bench.planned[:] = [Planned("one", "changed"), Planned("three")]
    command = bench.do(APPLY)
    assert command.error is None and command.message == "applied: unloaded two, reloaded one, loaded three"
    assert bench.states() == {"one": READY, "three": READY} and bench.folders.points == {"one": 2, "two": 1, "three": 1}
    bench.planned.append(Planned("four"))
    calls = len(bench.triton.calls)
    assert bench.do(APPLY).message == "applied: loaded four"
    assert not any("one" in call or "three" in call for call in bench.triton.calls[calls:]), "what did not change stays"


def test_an_applied_file_has_its_order_and_finds_what_serves(bench: Bench) -> None:
    bench.do(UNLOAD, "two")
    bench.planned[:] = [Planned("three"), Planned("two"), Planned("one")]
    assert bench.do(APPLY).message == "applied: loaded three"
    assert bench.serving == ["one"], "the others take no part in sharing the cores"
    assert list(bench.states()) == list(bench.do(LIST).models) == ["three", "two", "one"]
    # Its plan is the new one, so that it gets cores of its own when it is loaded.
    assert bench.models.models["two"].planned is bench.planned[1]


def test_what_is_loaded_may_be_changed_while_others_are_loaded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, together=False)
    bench.triton.slow["two.vit"] = slow = Answer(done=False)
    bench.models.load_all()
    bench.step_until(lambda: bench.states()["one"] == READY)
    assert bench.states()["two"] == LOADING and bench.do(UNLOAD, "one").error is None
    refused = bench.do(UNLOAD, "two")
    assert refused.error is not None and refused.error.status == 409
    slow.done = True
    bench.triton.slow.clear()
    bench.step_until(lambda: bench.states() == {"one": UNLOADED, "two": READY})


def test_an_unusable_file_changes_nothing(bench: Bench) -> None:
    bench.unusable = "models.yaml: unknown key"
    command = bench.do(APPLY)
    assert command.error is not None and command.error.status == 400 and "unknown key" in str(command.error)
    assert bench.states() == {"one": READY, "two": READY}


def test_what_nobody_foresaw_ends_an_operation_and_nothing_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bench.folders, "write_steps", full)
    command = bench.do(RELOAD, "one")
    assert command.error is not None and "No space left" in str(command.error)
    assert bench.states()["one"] == READY
    bench.do(UNLOAD, "two")
    bench.do(LOAD, "two")
    assert bench.states()["two"] == FAILED
    monkeypatch.undo()
    bench.do(LOAD, "two")
    assert bench.states() == {"one": READY, "two": READY}
    monkeypatch.setattr(bench.models, "_replan", lambda serving: 1 / 0)
    command = bench.do(APPLY)
    assert command.error is not None and "ZeroDivisionError" in str(command.error)
    monkeypatch.setattr(bench.folders, "remove_names", lambda names: 1 / 0)
    bench.do(UNLOAD, "two")
    bench.settle()
    assert bench.states()["one"] == READY


def test_states_that_cannot_be_written_stop_nothing(bench: Bench) -> None:
    bench.file.unlink()
    bench.file.mkdir()
    bench.models.submit(Command(UNLOAD, "two"))
    for _ in range(400):
        bench.models.step()
        bench.now += 0.1
        time.sleep(0.0005)
    assert bench.models.states["two"].state == UNLOADED
    assert any("could not be written" in line for line in bench.lines)


def test_an_unknown_number_of_requests_is_not_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.triton, "requests", lambda: Answer("the metrics answered 500"))
    begun = bench.now
    bench.do(UNLOAD, "two")
    assert bench.now - begun >= GRACE_S


def test_a_model_of_embeddings_has_one_step(tmp_path: Path) -> None:
    bench = Bench(tmp_path, [Planned("bge", embedding=True), Planned("one")])
    bench.models.load_all()
    bench.step_until(lambda: bench.models.settled)
    assert {"bge", "bge.embedding"} <= bench.triton.ready and read_states(bench.file)["bge"].engine == "bge.embedding"
    bench.history.clear()
    bench.triton.running["bge.embedding"] = 1
    command = Command(RELOAD, "bge")
    bench.models.submit(command)
    bench.step_until(lambda: read_states(bench.file)["bge"].engine == "bge.g2.embedding")
    bench.settle(3)
    assert "bge.embedding" in bench.triton.ready, "it has a request still"
    bench.triton.running.clear()
    bench.step_until(lambda: command.wait(0))
    assert "without a gap" in command.message and "bge.embedding" not in bench.triton.ready
    assert {state for name, state in bench.history if name == "bge"} == {READY}
    assert bench.lose("bge.g2.embedding") is False
    bench.step_until(lambda: bench.states()["bge"] == READY)
    bench.settle()
    assert "bge.g3.embedding" in bench.triton.ready and bench.triton.killed == ["bge.g2.embedding"]
    assert bench.do(UNLOAD, "bge").error is None and not any("bge" in name for name in bench.triton.ready)
    assert bench.do(LOAD, "bge").error is None


def test_the_list(bench: Bench) -> None:
    bench.triton.running["one.tensorrt_llm"] = 4
    found = bench.do(LIST).models
    assert found["one"]["requests"] == 4 and found["one"]["state"] == READY and found["two"]["requests"] is None
    assert not any("list" in line for line in bench.lines)


def test_reasons_are_short() -> None:
    long = (
        "load failed for model 'a.vit': version 1 is at UNAVAILABLE state: Internal: ValueError: no tower\n\nAt:\n  x"
    )
    assert short_reason(long) == "ValueError: no tower"
    assert short_reason("Connection refused") == "Connection refused"
