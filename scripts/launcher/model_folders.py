# SPDX-License-Identifier: Apache-2.0
"""The model repository of several models: folders that link to the committed code, with configs of their own."""

import compileall
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from common import model_names
from common.engine_statistics import STATISTICS
from common.model_names import ENSEMBLE, STEPS, step
from common.served_model import EMBEDDING, PARAMETER, ServedModelInfo
from common.versions import BUILD_INFO
from python_backend.config import ENVIRONMENT, escape, expand
from scripts.launcher.layout import read_config, set_instances, write_model

CONFIG = "config.pbtxt"
# How Triton names the backend of a Python model.
_PYTHON = "python"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What the folders of one served model are made of.

    repository: the folder with the committed models. variables: they expand the parameters of the configs.
    environment: variables that its processes set before they import anything. info: for frontends. configs: configs of
    steps that replace the committed ones, by role. config_name: a named config to take where there is one.
    instances: the number of processes, by the role of steps that have another number than in the config.
    """

    name: str
    repository: Path
    variables: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)
    info: ServedModelInfo = field(default_factory=ServedModelInfo)
    configs: Mapping[str, ModelConfig] = field(default_factory=dict)
    config_name: str | None = None
    instances: Mapping[str, int] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of its steps."""
        return (model_names.EMBEDDING,) if self.info.kind == EMBEDDING else STEPS

    def steps(self, generation: int) -> tuple[str, ...]:
        """The names of its steps in Triton, in the order of a request."""
        return tuple(step(self.name, role, generation) for role in self.roles)


class ModelFolders:
    """A folder that Triton reads as its model repository. Each change of a file or folder in it is a rename."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def write(self, plan: ModelPlan, generation: int = 1) -> None:
        """Write the steps of a generation and the model that clients call; raises LaunchError as `write_steps`."""
        self.write_steps(plan, generation)
        self.point(plan, generation)

    def write_steps(self, plan: ModelPlan, generation: int) -> None:
        """Write the steps of a generation. Raises LaunchError if the committed repository lacks a config."""
        for role, name in zip(plan.roles, plan.steps(generation), strict=True):
            self._place(plan, role, name, self._step_config(plan, role))

    def point(self, plan: ModelPlan, generation: int) -> None:
        """Let the model that clients call point at the steps of a generation."""
        role = model_names.EMBEDDING if plan.info.kind == EMBEDDING else ENSEMBLE
        self._place(plan, role, plan.name, self._ensemble(plan, generation))

    def remove_names(self, names: Iterable[str]) -> None:
        """Remove these Triton models; fine if there are none."""
        for name in names:
            with self._aside() as aside:
                if (self.folder / name).is_dir():
                    os.rename(self.folder / name, aside / name)

    def _step_config(self, plan: ModelPlan, role: str) -> ModelConfig:
        config = ModelConfig()
        config.CopyFrom(plan.configs[role] if role in plan.configs else _committed(plan, role))
        if role in plan.instances:
            set_instances(config, plan.instances[role])
        # Of a model that is served alone; here the ensemble has it.
        config.parameters.pop(PARAMETER, None)
        return _filled(config, plan)

    def _ensemble(self, plan: ModelPlan, generation: int) -> ModelConfig:
        """The config of the Triton model that clients call."""
        if plan.info.kind == EMBEDDING:
            config = _ensemble_of(_committed(plan, model_names.EMBEDDING))
        else:
            config = _committed(plan, ENSEMBLE)
        for one in config.ensemble_scheduling.step:
            one.model_name = step(plan.name, one.model_name, generation)
        config.parameters[PARAMETER].string_value = plan.info.to_json()
        return config

    def _place(self, plan: ModelPlan, role: str, name: str, config: ModelConfig) -> None:
        """Make the folder of a Triton model, or replace the config in the one that is there."""
        config.name = name
        target = self.folder / name
        # The processes would write the compiled code beside the code while they load. Triton would take that for a
        # change, and load every step once more when it loads the ensemble.
        compileall.compile_dir(plan.repository / role, quiet=2)
        with self._aside() as aside:
            write_model(plan.repository / role, config, aside / name)
            if target.is_dir():
                os.replace(aside / name / CONFIG, target / CONFIG)
            else:
                os.rename(aside / name, target)

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """A folder on the same disk that Triton does not read; removed with what it holds."""
        folder = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _committed(plan: ModelPlan, role: str) -> ModelConfig:
    named = f"{role}/configs/{plan.config_name}.pbtxt"
    return read_config(plan.repository, named if (plan.repository / named).is_file() else f"{role}/{CONFIG}")


def _ensemble_of(model: ModelConfig) -> ModelConfig:
    """An ensemble with the inputs of its only step, and the outputs that answer requests."""
    outputs = [tensor for tensor in model.output if tensor.name not in (BUILD_INFO, STATISTICS)]
    config = ModelConfig(platform=ENSEMBLE, max_batch_size=model.max_batch_size, input=model.input, output=outputs)
    only = config.ensemble_scheduling.step.add(model_name=model_names.EMBEDDING, model_version=-1)
    for tensor in model.input:
        only.input_map[tensor.name] = tensor.name
    for tensor in outputs:
        only.output_map[tensor.name] = tensor.name
    return config


def _filled(config: ModelConfig, plan: ModelPlan) -> ModelConfig:
    """Expand the parameters, and add the environment of a Python model."""
    for parameter in config.parameters.values():
        parameter.string_value = escape(expand(parameter.string_value, plan.variables))
    if plan.environment and config.backend == _PYTHON:
        config.parameters[ENVIRONMENT].string_value = escape(json.dumps(dict(plan.environment)))
    return config
