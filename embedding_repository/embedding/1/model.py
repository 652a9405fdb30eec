# SPDX-License-Identifier: Apache-2.0
"""Triton model `embedding`: texts or token ids in, their embeddings out; or pairs of texts in, their scores out."""

import locale

# Triton's stub process starts in the C locale, where open() reads ASCII; vLLM and transformers read UTF-8 at import.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

from engines.vllm import forkserver  # noqa: E402
from python_backend import watchdog  # noqa: E402
from python_backend.api import InferenceRequest, InferenceResponse  # noqa: E402
from python_backend.config import ModelParameters, apply_environment  # noqa: E402
from python_backend.imports import quick_imports  # noqa: E402
from python_backend.logs import model_logger  # noqa: E402


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine; raises ValueError for a wrong option, or the engine's own error."""
        apply_environment(args["model_config"])
        model_logger("embedding", verbose=True)
        # Before the engine, whose processes must not outlive a server that is killed while it loads.
        watchdog.start()
        parameters = ModelParameters.from_config(args["model_config"])
        if parameters.text("engine") == "vllm":
            # Before everything that takes time to import.
            forkserver.start()
        with quick_imports():
            # Only now, because vLLM and PyTorch read the environment.
            from engines.embedding_service import EmbeddingService

            self._service = EmbeddingService.from_config(parameters)
        self._service.start()

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse | None]:
        """Accept the requests. None stands for a response that is sent later."""
        for request in requests:
            self._service.accept(request)
        return [None] * len(requests)

    def finalize(self) -> None:
        """Cancel what is running and stop the engine."""
        self._service.close()
