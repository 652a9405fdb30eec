# SPDX-License-Identifier: Apache-2.0
"""Triton model `postprocessing`: the engine's tensors in, text deltas out."""

import locale

# Triton's stub process starts in the C locale, where open() reads ASCII; tokenizer files are UTF-8.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

from common.no_torch import import_transformers_without_torch  # noqa: E402
from python_backend.api import InferenceRequest, InferenceResponse  # noqa: E402
from python_backend.config import ModelParameters, apply_environment  # noqa: E402
from python_backend.imports import quick_imports  # noqa: E402


class TritonPythonModel:
    """The interface that Triton's Python backend calls. One instance must get all streams' responses, in order."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and the family's answer format; raises ValueError for a wrong path or option."""
        apply_environment(args["model_config"])
        with quick_imports():
            import_transformers_without_torch()
            # Only now, because libraries read the environment when they are imported.
            from postprocessing.postprocessor import Postprocessor

            self._postprocessor = Postprocessor.load(ModelParameters.from_config(args["model_config"]))

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse]:
        """One response per request."""
        return self._postprocessor.execute(requests)

    def finalize(self) -> None:
        """Stop publishing metrics."""
        self._postprocessor.close()
