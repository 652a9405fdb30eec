# SPDX-License-Identifier: Apache-2.0
"""Triton model `preprocessing`: a request's tensors in, the engine's input tensors out."""

import locale
import os
from pathlib import Path

# Triton's stub process starts in the C locale, where open() reads ASCII; tokenizer files are UTF-8.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

from common.no_torch import import_transformers_without_torch  # noqa: E402
from common.vision_path import VisionPath, vision_path  # noqa: E402
from python_backend import watchdog  # noqa: E402
from python_backend.api import InferenceRequest, InferenceResponse  # noqa: E402
from python_backend.config import ModelParameters, apply_environment  # noqa: E402
from python_backend.imports import quick_imports  # noqa: E402


class TritonPythonModel:
    """The interface that Triton's Python backend calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the checkpoint's tokenizer and styler; raises ValueError for a wrong path or option."""
        apply_environment(args["model_config"])
        # Nothing here computes on a GPU, but a library could open a context there, hundreds of megabytes in each
        # process. vLLM, which runs some checkpoints' processors here, takes this value: it asks NVML for facts such as
        # the default dtype.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        watchdog.start()
        parameters = ModelParameters.from_config(args["model_config"])
        with quick_imports():
            if not _needs_torch(parameters):
                import_transformers_without_torch()
            # Only now, because vLLM and PyTorch read the environment.
            from preprocessing.preprocessor import Preprocessor

            self._preprocessor = Preprocessor.load(parameters)

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse]:
        """One response per request, an error response if its input is wrong."""
        return self._preprocessor.execute(requests)


def _needs_torch(parameters: ModelParameters) -> bool:
    """Whether pictures are made ready by the checkpoint's own processor; raises ValueError for a wrong option."""
    path = vision_path(Path(parameters.required("model_path")), parameters.text("vision"), parameters.text("engine"))
    return path is VisionPath.ENGINE
