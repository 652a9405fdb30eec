# SPDX-License-Identifier: Apache-2.0
"""Triton model `vit`: image tiles in, rows of the prompt embedding table out. Requests without tiles pass through."""

import locale

# Triton's stub process starts in the C locale, where open() reads ASCII; the runtimes' packages read UTF-8 at import.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

from python_backend.api import InferenceRequest, InferenceResponse  # noqa: E402
from python_backend.config import ModelParameters, apply_environment  # noqa: E402


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tower, if the checkpoint has one. Raises ValueError with the reason if it cannot run."""
        apply_environment(args["model_config"])
        # Only now, because they read the environment.
        from vision.options import read_options
        from vision.service import VisionService

        self._service = VisionService(read_options(ModelParameters.from_config(args["model_config"])))

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse] | None:
        """Answer text requests at once and queue those with images."""
        return self._service.execute(requests)

    def finalize(self) -> None:
        """Answer the queued requests."""
        self._service.close()
