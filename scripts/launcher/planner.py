# SPDX-License-Identifier: Apache-2.0
"""Plan several models: resolve and check each and all together, before anything is started."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from rich.console import Console
from tritonclient.grpc.model_config_pb2 import ModelConfig

from common.model_names import ENGINE
from common.served_model import EMBEDDING, ServedModelInfo
from frontend.settings import ENV_PREFIX, Settings
from preprocessing.engine_traits import TRTLLM
from scripts.launcher import environment as environments
from scripts.launcher.adapters import with_adapters, without_adapters
from scripts.launcher.checks import (
    GIB,
    available_memory,
    check_context,
    check_formats,
    check_memory_together,
    check_options,
    engine_memory,
)
from scripts.launcher.embedding import embedding_options, wanted_kind
from scripts.launcher.engine_folder import EngineFolder, check_manifest
from scripts.launcher.environment import TritonServer
from scripts.launcher.errors import LaunchError
from scripts.launcher.instances import instances_within
from scripts.launcher.model import ServedModel, modalities, resolve_model
from scripts.launcher.model_folders import ModelPlan
from scripts.launcher.models_file import FRONTEND, ModelSpec
from scripts.launcher.multi_gpu import DEFAULT_UTILIZATION, check_shares, check_trtllm, check_vllm_gpus, gpus_of
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import BACKEND, engine_name, filled_config, find_engine, guided_decoding
from scripts.shared.toolchain import gpu_memory

# Variables that the processes of a model set themselves; all others are in its configs.
_OF_PROCESSES = ("VLLM_", "CUDA_")
_RANKS = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")
_CORES = "VLLM_CPU_OMP_THREADS_BIND"
# A model imports vLLM in two processes, and compiles in several threads.
_CORES_TO_LOAD = 4
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """A model of several, ready to be written into the repository.

    memory: bytes of the machine's memory for weights and KV cache; 0 on a GPU. gpus: the part of their memory that
    vLLM takes, and the GPUs. environment: that of its engine. cores: of the machine, for it alone; "" if they were not
    shared out.
    """

    spec: ModelSpec
    plan: ModelPlan
    model: ServedModel
    memory: int
    gpus: tuple[float, Sequence[str]]
    environment: Mapping[str, str]
    cores: str = ""

    @property
    def name(self) -> str:
        """The first of its names, that of its folder in the repository."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A model whose files are found. environment: that of its engine. options: those that are left for the engine."""

    spec: ModelSpec
    options: LaunchOptions
    model: ServedModel
    environment: Mapping[str, str]
    configs: Mapping[str, ModelConfig]

    @property
    def on_vllm(self) -> bool:
        """Whether vLLM serves it."""
        return engine_name(self.options, self.environment) == "vllm"


class Planner:
    """Plans the models of one server.

    base: the launcher's environment. shared: that of all parts, without anything of one model. server: None if
    tritonserver is started by others, and elsewhere perhaps.
    """

    def __init__(
        self, base: Mapping[str, str], shared: Mapping[str, str], server: TritonServer | None, console: Console
    ) -> None:
        self._base = base
        self._shared = shared
        self._server = server
        self._console = console

    def plan(self, specs: Sequence[ModelSpec], *, running: Sequence[PlannedModel] | None = None) -> list[PlannedModel]:
        """Plan these models, downloads and conversions included.

        running: what serves already and holds its memory, so that what is free says nothing. Those that have not
        changed keep their cores, and the others get what is left. None before anything is started.
        Raises LaunchError naming the model that cannot be served, or what all of them together lack.
        """
        kept = {one.name: one.cores for one in running or () if one.cores and one.spec in specs}
        cores = share_cores(specs, self._shared, kept)
        resolved = []
        for spec in specs:
            with _named(spec):
                resolved.append(self._resolve(spec, cores.get(spec.name)))
        memory = {one.spec.name: engine_memory(one.model, one.environment) for one in resolved}
        if running is None:
            check_memory_together({one.spec.name: (one.model, memory[one.spec.name]) for one in resolved})
        check_shares({one.spec.name: _gpu_share(one) for one in resolved if one.on_vllm})
        left = available_memory() - (sum(memory.values()) if running is None else 0)
        planned = [self._planned(one, memory[one.spec.name], left, len(resolved)) for one in resolved]
        return [replace(one, cores=cores.get(one.name, "")) for one in planned]

    def _resolve(self, spec: ModelSpec, cores: str | None) -> _Resolved:
        options = spec.options
        shared = {**self._shared, **self._gpus(spec), **({_CORES: cores} if cores else {}), **spec.environment}
        check_options(options, {**shared, **options.settings})
        check_formats({**shared, **options.settings})
        engine = find_engine(options, shared)
        vision = {**shared, **options.settings}.get("TRITON_CHAT_VISION")
        served_by = engine_name(options, shared)
        if engine is None:
            check_vllm_gpus(options.engine, shared)
        check = partial(check_context, options=options, environment=shared)
        model = resolve_model(options.model, self._console, vision, served_by, wanted_kind(options), check)
        if model.kind == EMBEDDING:
            options = embedding_options(options, served_by, shared=True)
        options = with_adapters(options, model, spec.names, trtllm=engine is not None)
        shared |= environments.model_environment(self._base, options, model, engine)
        if engine is None:
            return _Resolved(spec, options, model, environments.engine_environment(shared, options, model.kind), {})
        options, adapters = without_adapters(options)
        config = self._cpp_config(options, engine, model, shared)
        if spec.devices is not None:
            config.parameters["gpu_device_ids"].string_value = ",".join(map(str, spec.devices))
        name = None if options.model_config_name == TRTLLM else options.model_config_name
        options = replace(options, engine={}, model_config_name=name)
        shared |= {"TRITON_CHAT_ENGINE": TRTLLM, "TRITON_CHAT_GUIDED_DECODING": str(guided_decoding(config)).lower()}
        shared |= adapters
        return _Resolved(spec, options, model, environments.engine_environment(shared, options), {ENGINE: config})

    def _gpus(self, spec: ModelSpec) -> dict[str, str]:
        """The variable that shows a model its GPUs only."""
        if spec.devices is None:
            return {}
        visible = environments.visible_gpus(self._shared)
        if missing := [device for device in spec.devices if device >= len(visible)]:
            raise LaunchError(f"devices has {missing[0]}, but {len(visible)} GPUs can be used here, counted from 0.")
        return {_VISIBLE: ",".join(visible[device] for device in spec.devices)}

    def _cpp_config(
        self, options: LaunchOptions, engine: EngineFolder, model: ServedModel, environment: Mapping[str, str]
    ) -> ModelConfig:
        """The config of TensorRT-LLM's C++ backend; raises LaunchError for what it can do only alone."""
        if engine.world_size > 1 or options.mpi_mode == "orchestrator":
            raise LaunchError(
                f"--engine {TRTLLM} on {engine.world_size} GPUs starts a tritonserver for each of them, which can "
                "serve nothing else.",
                "Serve it alone, or build an engine for one GPU.",
            )
        config = filled_config(options, engine, model.checkpoint.path)
        runs_here = self._server is not None and config.backend == BACKEND
        if self._server is not None and runs_here:
            check_trtllm(self._server, options, engine.world_size, environment)
        check_manifest(engine, model.checkpoint.path, runs_here=runs_here)
        return config

    def _planned(self, one: _Resolved, memory: int, left: int, models: int) -> PlannedModel:
        plan = ModelPlan(
            name=one.spec.name,
            repository=one.options.model_repository,
            variables=one.environment,
            environment={
                **{
                    name: text
                    for name, text in one.environment.items()
                    if name.startswith(_OF_PROCESSES) and self._shared.get(name) != text
                },
                **one.spec.environment,
            },
            info=self._info(one),
            configs=one.configs,
            config_name=one.options.model_config_name,
            instances=instances_within(one.options, one.model, left, models),
        )
        gpus = _gpu_share(one) if one.on_vllm else (0.0, ())
        return PlannedModel(
            spec=one.spec, plan=plan, model=one.model, memory=memory, gpus=gpus, environment=one.environment
        )

    def _info(self, one: _Resolved) -> ServedModelInfo:
        """What frontends are told: what differs from their own settings."""
        own: dict[str, Any] = {}
        for setting in fields(Settings):
            variable = ENV_PREFIX + setting.name.upper()
            text = one.environment.get(variable)
            if setting.name in FRONTEND and text and text != self._shared.get(variable):
                own[setting.name] = setting.metadata["parse"](text)
        context = one.environment.get("TRITON_CHAT_MAX_MODEL_LEN")
        return ServedModelInfo(
            names=one.spec.names,
            kind=one.model.kind,
            max_model_len=int(context) if context else None,
            modalities=modalities(one.model),
            **own,
        )


def fits(planned: PlannedModel) -> str | None:
    """Say why there is no room for a model beside what runs now; None if there is."""
    if planned.memory > (free := available_memory()):
        return f"it needs {planned.memory / GIB:.1f} GiB of memory, and {free / GIB:.1f} GiB is available"
    share, gpus = planned.gpus
    memory = gpu_memory() if gpus else {}
    for gpu in gpus:
        free, total = memory.get(gpu, (0, 0))
        if free < share * total:
            return f"it needs {share * total / GIB:.1f} GiB of GPU {gpu}, and {free / GIB:.1f} GiB is free"
    return None


def may_load_together(planned: Sequence[PlannedModel]) -> bool:
    """Whether loading all at once is no slower than one after the other, and as safe.

    On a shared GPU vLLM would count the memory that another one takes meanwhile as its own.
    """
    gpus = [gpu for one in planned for gpu in one.gpus[1]]
    enough = available_memory() >= 2 * sum(one.memory for one in planned)
    return len(set(gpus)) == len(gpus) and enough and len(os.sched_getaffinity(0)) >= _CORES_TO_LOAD * len(planned)


def share_cores(
    specs: Sequence[ModelSpec], environment: Mapping[str, str], kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Cores for the vLLM of each model on CPUs, by name; nothing for models that vLLM gives cores itself.

    Threads of two models on the same cores wait for each other at each operation. With more than one core for each,
    the last is left to the frontends and to Triton.
    kept: what models that run and stay as they are have. The others get what is left, or share all if that is nothing.
    """
    kept = kept or {}
    if environments.has_gpu(environment) or _CORES in environment:
        return {}
    # Workers of several ranks need a list each.
    alone = [
        spec
        for spec in specs
        if engine_name(spec.options, environment) == "vllm"
        and all(spec.options.engine.get(size, 1) == 1 for size in _RANKS)
    ]
    if len(alone) < 2:
        return {}
    waiting, every = [spec.name for spec in alone if spec.name not in kept], sorted(os.sched_getaffinity(0))
    taken = {int(core) for cores in kept.values() for core in cores.split(",")}
    cores, models = [core for core in every if core not in taken] or every, len(waiting)
    if len(cores) > models:
        cores.pop()
    chosen = dict(kept)
    for number, name in enumerate(waiting):
        begin, end = number * len(cores) // models, (number + 1) * len(cores) // models
        chosen[name] = ",".join(map(str, cores[begin : max(end, begin + 1)]))
    return chosen


def _gpu_share(one: _Resolved) -> tuple[float, list[str]]:
    """The part of its GPUs' memory that vLLM takes, and the GPUs."""
    engine = one.options.engine
    # With it vLLM takes so many bytes, whatever the GPU has.
    if engine.get("kv_cache_memory_bytes") is not None:
        return 0.0, []
    share = engine.get("gpu_memory_utilization", DEFAULT_UTILIZATION)
    return float(share), gpus_of(engine, one.environment)


@contextmanager
def _named(spec: ModelSpec) -> Iterator[None]:
    """Let a LaunchError begin with the model's name."""
    try:
        yield
    except LaunchError as error:
        raise LaunchError(f"model '{spec.name}': {error}", log=error.log) from error
