# SPDX-License-Identifier: Apache-2.0
"""How many processes `preprocessing` has: more than its config names if they run vLLM's processor of the checkpoint."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from common.served_model import EMBEDDING
from common.vision_path import VisionPath
from scripts.launcher.checks import available_memory, engine_memory
from scripts.launcher.layout import lay_out, read_config
from scripts.launcher.model import ServedModel
from scripts.launcher.options import LaunchOptions

MODEL = "preprocessing"
# Memory of a process with vLLM, torch and a processor (1.07 GB with that of Qwen2.5-VL), without pictures.
INSTANCE_BYTES = 2**30
# Each takes a core for as long as it processes a picture: half of them are left to the engine, the tokens and HTTP.
_FEWEST, _MOST = 2, 8


def choose_instances(options: LaunchOptions, model: ServedModel, environment: Mapping[str, str]) -> int | None:
    """The number of processes, or None for that of the config.

    environment: tritonserver's. Half of the memory that the engine leaves is for them.
    """
    return instances_within(options, model, available_memory() - engine_memory(model, environment))


def instances_within(options: LaunchOptions, model: ServedModel, left: int, models: int = 1) -> int | None:
    """The same, for one of so many models. left: bytes of memory that the engines of all of them leave."""
    if model.kind == EMBEDDING:
        return None
    if options.preprocessing_instances is not None or model.vision is not VisionPath.ENGINE:
        return options.preprocessing_instances
    cores = min(max(_FEWEST, len(os.sched_getaffinity(0)) // (2 * models)), _MOST)
    return max(1, min(cores, left // (2 * models * INSTANCE_BYTES)))


class RepositoryWithInstances:
    """A model repository in which `preprocessing` has so many processes. options: the launcher's, with it."""

    def __init__(self, options: LaunchOptions, count: int) -> None:
        config = read_config(options.model_repository, f"{MODEL}/config.pbtxt")
        for group in config.instance_group:
            group.count = count
        self._folder = TemporaryDirectory(prefix="triton_chat_repository_", ignore_cleanup_errors=True)
        lay_out(options.model_repository, {MODEL: config}, Path(self._folder.name))
        self.options = replace(options, model_repository=Path(self._folder.name))

    def close(self) -> None:
        """Remove the repository."""
        self._folder.cleanup()
