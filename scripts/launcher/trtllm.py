# SPDX-License-Identifier: Apache-2.0
"""What a stack with an engine of TensorRT-LLM has in addition to one that serves a checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from preprocessing.engine_traits import TRTLLM
from scripts.launcher.adapters import without_adapters
from scripts.launcher.engine_folder import EngineFolder, check_manifest
from scripts.launcher.environment import TritonServer
from scripts.launcher.layout import lay_out
from scripts.launcher.model import ServedModel
from scripts.launcher.multi_gpu import check_trtllm, orchestrator_environment, parallel_command
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import BACKEND, MODEL, filled_config, guided_decoding


class Trtllm:
    """A model repository for an engine of TensorRT-LLM, and the options and variables that go with it.

    options: the launcher's, with this repository. environment: added to that of the other parts.
    The constructor raises LaunchError if this machine or this engine cannot serve.
    """

    def __init__(
        self,
        options: LaunchOptions,
        engine: EngineFolder,
        model: ServedModel,
        server: TritonServer,
        environment: Mapping[str, str],
    ) -> None:
        options, adapters = without_adapters(options)
        config = filled_config(options, engine, model.checkpoint.path)
        if config.backend == BACKEND:
            check_trtllm(server, options, engine.world_size, environment)
        check_manifest(engine, model.checkpoint.path, runs_here=config.backend == BACKEND)
        self._world_size = engine.world_size
        self._folder = TemporaryDirectory(prefix="triton_chat_repository_", ignore_cleanup_errors=True)
        lay_out(options.model_repository, {MODEL: config}, Path(self._folder.name))
        name = None if options.model_config_name == TRTLLM else options.model_config_name
        # The engine's options are in its config now.
        self.options = replace(options, model_repository=Path(self._folder.name), model_config_name=name, engine={})
        self.environment = {
            "TRITON_CHAT_ENGINE": TRTLLM,
            "TRITON_CHAT_GUIDED_DECODING": str(guided_decoding(config)).lower(),
            **orchestrator_environment(options),
            **adapters,
        }

    def command(self, tritonserver: Sequence[str]) -> list[str]:
        """The command line that serves, made from that of one tritonserver."""
        return parallel_command(tritonserver, self.options, self._world_size)

    def close(self) -> None:
        """Remove the repository."""
        self._folder.cleanup()
