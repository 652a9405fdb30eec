# SPDX-License-Identifier: Apache-2.0
"""Triton model `tensorrt_llm` with a Python engine: prompt ids in, streamed ids out."""

import locale

# Triton's stub process starts in the C locale, where open() reads ASCII; vLLM and transformers read UTF-8 at import.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

from engines.vllm import forkserver  # noqa: E402
from python_backend import watchdog  # noqa: E402
from python_backend.api import InferenceRequest  # noqa: E402
from python_backend.config import ModelParameters, apply_environment  # noqa: E402
from python_backend.imports import quick_imports  # noqa: E402
from python_backend.logs import model_logger  # noqa: E402


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine; raises ValueError for a wrong option, or the engine's own error."""
        apply_environment(args["model_config"])
        model_logger("tensorrt_llm", verbose=True)
        # Before the engine, whose processes must not outlive a server that is killed while it loads.
        watchdog.start()
        parameters = ModelParameters.from_args(args)
        if parameters.text("engine") == "vllm" and parameters.instance == 0:
            # Before everything that takes time to import. The first instance starts vLLM's processes for all.
            forkserver.start()
        with quick_imports():
            # Only now, because vLLM and PyTorch read the environment.
            from engines.service import EngineService

            self._service = EngineService.from_config(parameters)
        self._service.start()

    def execute(self, requests: list[InferenceRequest]) -> None:
        """Accept the requests; responses are sent later (decoupled)."""
        self._service.accept(*requests)

    def finalize(self) -> None:
        """Cancel what is running and stop the engine."""
        self._service.close()
