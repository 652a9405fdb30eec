# SPDX-License-Identifier: Apache-2.0
"""Dead parts of the stack are restarted, until one dies too often."""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from scripts.launcher.budget import WINDOW_S, RestartBudget, backoff_s
from scripts.launcher.child_process import ChildProcess
from scripts.launcher.models import ServedModels
from scripts.launcher.repository import Load
from scripts.launcher.several import SeveralModels
from scripts.launcher.stubs import Stubs
from scripts.launcher.supervisor import CrashLoop, Supervisor

PATIENCE_S = 60.0
FAKE = Path(__file__).parents[3] / "fakes" / "fake_tritonserver.py"
MODELS = ("preprocessing", "tensorrt_llm")


class Bench:
    """A supervisor over a fake tritonserver, whose models are processes that sleep, and one sleeping frontend."""

    def __init__(self, folder: Path, restarts: int = 5) -> None:
        environment = os.environ | {"FAKE_TRITONSERVER": "keep_models", "FAKE_MODELS": str(folder)}
        triton = ChildProcess("tritonserver", [sys.executable, str(FAKE)], environment, folder / "tritonserver.log")
        wait_for(lambda: triton.lines().count("model up") == len(MODELS), triton.lines)
        frontend = ChildProcess("frontend-1", ["sleep", "60"], os.environ, folder / "frontend-1.log")
        self.parts = [triton, frontend]
        self.lines: list[str] = []
        self.serves = True
        self.loaded: list[str] = []
        self.supervisor = Supervisor(
            self.parts,
            budget=RestartBudget(restarts),
            load=self._load,
            ready=lambda: self.serves and self.parts[0].lines().count("model up") == len(MODELS),
            ready_timeout_s=PATIENCE_S,
            log=self.lines.append,
        )

    def stub(self, model: str) -> int:
        """Process id of a model."""
        line = next(line for line in self.parts[0].lines() if line.startswith(f"{model} is "))
        return int(line.split()[-1])

    def step_until(self, condition: Callable[[], bool]) -> None:
        def stepped() -> bool:
            self.supervisor.step()
            return condition()

        wait_for(stepped)

    def _load(self, model: str) -> Load:
        self.loaded.append(model)
        # Nobody listens there: the load fails.
        return Load("http://127.0.0.1:1", "key", model, 5)


def wait_for(condition: Callable[[], bool], state: Callable[[], object] = lambda: "not in time") -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, state()
        time.sleep(0.02)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for part in made.parts:
        part.stop(0.0)


def test_a_dead_frontend_is_restarted_and_its_log_continues(bench: Bench) -> None:
    dead = bench.parts[1]
    os.kill(dead.pid, signal.SIGKILL)
    bench.step_until(lambda: bench.parts[1].pid != dead.pid)
    assert bench.parts[1].exit_status() is None
    assert bench.lines[0].startswith("frontend-1 was ended by SIGKILL")
    assert bench.supervisor.degraded


def test_a_dead_tritonserver_is_restarted_and_leaves_nothing(bench: Bench) -> None:
    dead = bench.parts[0]
    os.kill(dead.pid, signal.SIGKILL)
    bench.step_until(lambda: any(line.startswith("ready again") for line in bench.lines))
    assert dead.session() == []
    assert len(bench.parts[0].session()) == 1 + len(MODELS)
    text = bench.parts[0].log_path.read_text()
    assert text.count("model up") == 2 * len(MODELS), "the log of the first one is kept"
    assert bench.parts[0].lines().count("model up") == len(MODELS), "but says nothing of the second"


@pytest.mark.parametrize("index", [0, 1])
def test_a_part_that_cannot_be_started_is_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, index: int
) -> None:
    """As when there are too many processes for a moment."""
    failures = iter([OSError(errno.EAGAIN, "no"), OSError(errno.ENOMEM, "no")])
    restart = ChildProcess.restart

    def fail(part: ChildProcess) -> ChildProcess:
        for failure in failures:
            raise failure
        return restart(part)

    monkeypatch.setattr(ChildProcess, "restart", fail)
    dead, other = bench.parts[index], bench.parts[1 - index]
    os.kill(dead.pid, signal.SIGKILL)
    bench.step_until(lambda: bench.parts[index].pid != dead.pid)
    assert [f"{dead.name} could not be started" in line for line in bench.lines] == [False, True, True]
    assert bench.parts[index].exit_status() is None and bench.parts[1 - index] is other
    bench.step_until(lambda: bench.parts[1 - index].exit_status() is None)


def test_a_part_that_can_never_be_started_ends_with_an_explanation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(part: ChildProcess) -> ChildProcess:
        raise FileNotFoundError(errno.ENOENT, "no such file")

    monkeypatch.setattr(ChildProcess, "restart", fail)
    monkeypatch.setattr("scripts.launcher.supervisor.backoff_s", lambda fault: 0.0)
    os.kill(bench.parts[1].pid, signal.SIGKILL)
    with pytest.raises(CrashLoop, match=r"frontend-1 could not be started .* giving up"):
        bench.step_until(lambda: False)


def test_the_engines_process_takes_tritonserver_with_it(bench: Bench) -> None:
    dead = bench.parts[0]
    bench.supervisor.step()
    os.kill(bench.stub("tensorrt_llm"), signal.SIGKILL)
    bench.step_until(lambda: bench.parts[0].pid != dead.pid)
    assert bench.lines[0].startswith("tritonserver has lost the process of model tensorrt_llm")
    assert bench.loaded == []


def test_a_restart_after_the_loss_of_the_engine_that_loses_a_process_too_is_tried_again(
    bench: Bench, tmp_path: Path
) -> None:
    bench.supervisor.step()
    (tmp_path / "unhealthy").touch()
    os.kill(bench.stub("tensorrt_llm"), signal.SIGKILL)
    bench.step_until(lambda: any(line.startswith("ready again") for line in bench.lines))
    assert "lost the process of model tensorrt_llm" in bench.lines[0] and "for dead while it loaded" in bench.lines[1]
    assert not (tmp_path / "unhealthy").exists() and len(bench.parts[0].session()) == 1 + len(MODELS)


@pytest.mark.parametrize("model", MODELS)
def test_a_loaded_model_that_dies_before_a_restarted_server_is_ready(bench: Bench, model: str) -> None:
    """Triton does not notice: waiting for it to be ready would last as long as a start may take."""
    bench.serves = False
    os.kill(bench.parts[0].pid, signal.SIGKILL)
    bench.step_until(lambda: bench.parts[0].exit_status() is None and len(bench.lines) == 1)
    bench.step_until(lambda: bench.parts[0].lines().count("model up") == len(MODELS))
    bench.step_until(lambda: bool(bench.supervisor._stubs.living(model)))
    os.kill(bench.stub(model), signal.SIGKILL)
    bench.step_until(lambda: len(bench.lines) > 1)
    assert f"has lost the process of model {model} before it was ready" in bench.lines[1]
    bench.serves = True
    bench.step_until(lambda: bench.lines[-1].startswith("ready again"))


def test_a_model_that_cannot_be_loaded_again_takes_tritonserver_with_it(bench: Bench) -> None:
    dead = bench.parts[0]
    bench.supervisor.step()
    os.kill(bench.stub("preprocessing"), signal.SIGKILL)
    bench.step_until(lambda: bench.parts[0].pid != dead.pid)
    assert bench.loaded == ["preprocessing"]
    assert "could not load model preprocessing again" in bench.lines[1]


def test_a_crash_loop_ends_with_an_explanation(tmp_path: Path) -> None:
    bench = Bench(tmp_path, restarts=2)
    try:
        for _ in range(2):
            dead = bench.parts[1]
            os.kill(dead.pid, signal.SIGKILL)
            bench.step_until(lambda dead=dead: bench.parts[1].pid != dead.pid)
        os.kill(bench.parts[1].pid, signal.SIGKILL)
        with pytest.raises(CrashLoop, match=r"frontend-1 was ended by SIGKILL.*fault 3 within 15 minutes") as loop:
            bench.step_until(lambda: False)
        assert loop.value.part is bench.parts[1]
    finally:
        for part in bench.parts:
            part.stop(0.0)


def test_stubs_report_each_death_once(bench: Bench) -> None:
    stubs = Stubs(bench.parts[0].pid)
    assert stubs.died() == []
    killed = bench.stub("preprocessing")
    os.kill(killed, signal.SIGKILL)
    found: list[tuple[str, int]] = []
    wait_for(lambda: bool(found.extend(stubs.died()) or found))
    assert found == [("preprocessing", killed)] and stubs.died() == []


class LosingModels:
    """Takes note of what it loses. `preprocessing` already serves."""

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.replaced: list[str] = []

    def lose(self, step: str, pid: int) -> bool:
        self.lost.append(step)
        return step == "preprocessing"

    def replace(self, step: str) -> None:
        self.replaced.append(step)


def test_several_models_learn_what_dies_during_the_start(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.launcher.several.LOOK_PERIOD_S", 0.0)
    several, models = object.__new__(SeveralModels), LosingModels()
    several.stubs, several._look_at = None, 0.0
    several._models = cast(ServedModels, models)
    several.note_deaths(bench.parts[0].pid)
    for model in MODELS:
        os.kill(bench.stub(model), signal.SIGKILL)
    wait_for(lambda: bool(several.note_deaths(bench.parts[0].pid) or len(models.lost) == len(MODELS)))
    assert sorted(models.lost) == sorted(MODELS) and models.replaced == ["preprocessing"]


def test_killed_stubs_are_not_reported(bench: Bench) -> None:
    stubs = Stubs(bench.parts[0].pid)
    stubs.died()
    living = stubs.living("preprocessing")
    assert living == [bench.stub("preprocessing")]
    stubs.end(living)
    wait_for(lambda: not stubs.died() and not stubs.living("preprocessing"))
    assert stubs.died() == [] and len(stubs.living("tensorrt_llm")) == 1


def test_the_budget_forgets_old_faults() -> None:
    now = [0.0]
    budget = RestartBudget(2, clock=lambda: now[0])
    assert [budget.spend("a"), budget.spend("a"), budget.spend("a"), budget.spend("b")] == [1, 2, None, 1]
    now[0] = WINDOW_S + 1
    assert budget.spend("a") == 1
    assert RestartBudget(0).spend("a") is None


def test_backoff() -> None:
    assert [backoff_s(fault) for fault in (1, 2, 3, 4, 20)] == [0.0, 1.0, 2.0, 4.0, 30.0]
