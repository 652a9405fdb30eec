# SPDX-License-Identifier: Apache-2.0
"""How many processes models have: of `preprocessing` more than its config names on larger machines."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from common.model_names import ENGINE, PREPROCESSING
from common.served_model import EMBEDDING
from common.vision_path import VisionPath
from scripts.launcher.checks import available_memory, engine_memory
from scripts.launcher.errors import LaunchError
from scripts.launcher.layout import lay_out, read_config, set_instances
from scripts.launcher.model import ServedModel
from scripts.launcher.options import LaunchOptions

# Memory of a process with vLLM, torch and a processor (1.07 GB with that of Qwen2.5-VL), without pictures; and of one
# that only tokenizes, with two tokenizers of a large vocabulary.
INSTANCE_BYTES, TOKENIZER_BYTES = 2**30, 2**29
# Each takes a core for as long as it processes a picture: half of them are left to the engine, the tokens and HTTP. A
# prompt takes 1 to 2 ms, which only bursts wait for.
_CORES, _CORES_WITHOUT_PROCESSOR = 2, 4
_FEWEST, _MOST = 2, 8  # the fewest are those of the config


def choose_instances(options: LaunchOptions, model: ServedModel, environment: Mapping[str, str]) -> dict[str, int]:
    """The number of processes of each model of Triton's that has another number than its config says.

    environment: tritonserver's. Half of the memory that the engine leaves is for those of `preprocessing`.
    """
    return instances_within(options, model, available_memory() - engine_memory(model, environment))


def instances_within(options: LaunchOptions, model: ServedModel, left: int, models: int = 1) -> dict[str, int]:
    """The same, for one of so many served models. left: bytes of memory that the engines of all of them leave."""
    if model.kind == EMBEDDING:
        if options.engine_clients not in (None, 1):
            raise LaunchError(f"--engine-clients {options.engine_clients}: a model of embeddings has one process.")
        return {}
    counts = {PREPROCESSING: _of_preprocessing(options, model, left, models), ENGINE: options.engine_clients}
    return {name: count for name, count in counts.items() if count is not None}


def _of_preprocessing(options: LaunchOptions, model: ServedModel, left: int, models: int) -> int | None:
    """The number of processes of `preprocessing`, or None for that of the config."""
    if options.preprocessing_instances is not None:
        return options.preprocessing_instances
    cores = len(os.sched_getaffinity(0)) // models
    if model.vision is VisionPath.ENGINE:
        most = min(max(_FEWEST, cores // _CORES), _MOST)
        return max(1, min(most, left // (2 * models * INSTANCE_BYTES)))
    if options.model_repository != LaunchOptions().model_repository:
        # Whoever brings a repository of their own has chosen.
        return None
    count = min(cores // _CORES_WITHOUT_PROCESSOR, _MOST, left // (2 * models * TOKENIZER_BYTES))
    return count if count > _FEWEST else None


class RepositoryWithInstances:
    """A model repository in which models have so many processes. options: the launcher's, with it.

    counts: by the models' names.
    """

    def __init__(self, options: LaunchOptions, counts: Mapping[str, int]) -> None:
        configs = {model: read_config(options.model_repository, f"{model}/config.pbtxt") for model in counts}
        for model, count in counts.items():
            set_instances(configs[model], count)
        self._folder = TemporaryDirectory(prefix="triton_chat_repository_", ignore_cleanup_errors=True)
        lay_out(options.model_repository, configs, Path(self._folder.name))
        self.options = replace(options, model_repository=Path(self._folder.name))

    def close(self) -> None:
        """Remove the repository."""
        self._folder.cleanup()
