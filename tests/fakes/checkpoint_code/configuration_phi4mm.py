# SPDX-License-Identifier: Apache-2.0
"""A fake of the code that a checkpoint of Phi-4-multimodal brings: its configuration."""

from typing import Any

from transformers import Phi3Config


class Phi4MMConfig(Phi3Config):
    """That of Phi-3, and what vLLM reads of the parts for pictures and audio."""

    model_type = "phi4mm"
    embd_layer: dict[str, Any] | None = None
    audio_processor: dict[str, Any] | None = None
    img_processor: Any = None
