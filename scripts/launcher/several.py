# SPDX-License-Identifier: Apache-2.0
"""What a stack with several models has in addition to one with a single model."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from rich.console import Console

from common import models_state
from scripts.launcher import control
from scripts.launcher.budget import RestartBudget
from scripts.launcher.environment import TritonServer
from scripts.launcher.model_folders import ModelFolders
from scripts.launcher.model_processes import ModelProcesses
from scripts.launcher.models import ServedModels
from scripts.launcher.models_file import read_models
from scripts.launcher.options import LaunchOptions
from scripts.launcher.planner import PlannedModel, Planner, fits, may_load_together
from scripts.launcher.repository import Repository
from scripts.launcher.stubs import LOOK_PERIOD_S, Stubs


class SeveralModels:
    """The models of a stack, checked and planned by the constructor, which raises LaunchError if they cannot be served.

    options: the launcher's, with the repository that these models get. planned: the models. server: tritonserver's
    program. base: the launcher's environment. shared: that of all parts, without anything of one model.
    """

    def __init__(
        self,
        options: LaunchOptions,
        server: TritonServer,
        base: Mapping[str, str],
        shared: Mapping[str, str],
        console: Console,
    ) -> None:
        # tritonserver and its models run in other folders.
        given = options if options.models is None else replace(options, models=options.models.absolute())
        engine = base.get("TRITON_CHAT_ENGINE") or "vllm"
        planner = Planner(base, shared, server, console)
        self.planned: list[PlannedModel] = planner.plan(read_models(given, engine))
        # Whether all of them are loaded at once.
        self.together = may_load_together(self.planned)
        self._replan = lambda running: planner.plan(
            read_models(given, engine), running=[cast(PlannedModel, one) for one in running]
        )
        self._folder = TemporaryDirectory(prefix="triton_chat_models_", ignore_cleanup_errors=True)
        self.options = replace(given, model_repository=Path(self._folder.name) / "repository")
        self._folders = ModelFolders(self.options.model_repository)
        self._state_file = Path(self._folder.name) / "models.json"
        self._control: control.Control | None = None
        self._models: ServedModels | None = None
        # Those of the tritonserver that starts; its supervisor goes on with them.
        self.stubs: Stubs | None = None
        self._look_at = 0.0

    @property
    def models(self) -> ServedModels:
        """The models of the running server; only after `start`."""
        if self._models is None:
            raise RuntimeError("the models are not started")
        return self._models

    def start(
        self,
        repository: Repository,
        processes: ModelProcesses,
        *,
        grace_s: float,
        port: int,
        log: Callable[[str], None],
    ) -> dict[str, str]:
        """Take control of a tritonserver that starts now; returns the variables by which frontends learn of the models.

        grace_s: time for the requests of a model that is unloaded. port: of the API. log: prints a line.
        """
        self._models = ServedModels(
            self.planned,
            self._folders,
            repository,
            processes,
            state_file=self._state_file,
            # Every one of them came from the planner.
            fits=lambda planned: fits(cast(PlannedModel, planned)),
            replan=self._replan,
            budget=RestartBudget(self.options.restarts),
            grace_s=grace_s,
            together=self.together,
            log=log,
        )
        self._control = control.Control(self._models.submit, port)
        self._models.load_all()
        return {models_state.VARIABLE: str(self._state_file), control.VARIABLE: str(self._control.path)}

    def note_deaths(self, tritonserver: int) -> None:
        """During the start: tell the models what this tritonserver has lost."""
        now = time.monotonic()
        if self.stubs is None or self.stubs.tritonserver != tritonserver:
            self.stubs = Stubs(tritonserver)
        elif now < self._look_at:
            return
        self._look_at = now + LOOK_PERIOD_S
        for step, pid in self.stubs.died():
            if self.models.lose(step, pid):
                # Nothing loads a single step again before the start has ended.
                self.models.replace(step)

    @property
    def failures(self) -> dict[str, str]:
        """Why models do not serve, by name."""
        states = self.models.states
        return {name: state.reason or state.state for name, state in states.items() if not state.ready}

    def refuse_commands(self) -> None:
        """Close the control socket."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def close(self) -> None:
        """Remove the repository, after tritonserver is gone."""
        self.refuse_commands()
        self._folder.cleanup()
