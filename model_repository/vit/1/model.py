# SPDX-License-Identifier: Apache-2.0
"""Triton model `vit`: passes text requests on. A step that sends no output leaves the engine's table input out."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Triton's interface, for a checkpoint without a vision tower."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response without tensors per request."""
        return [pb_utils.InferenceResponse([]) for _ in requests]
