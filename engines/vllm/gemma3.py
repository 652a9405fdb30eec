# SPDX-License-Identifier: Apache-2.0
"""Register Gemma 3 with vLLM without its image processor, in every process that loads the model's class."""

import types
from collections.abc import Mapping
from typing import Any

ARCHITECTURE = "Gemma3ForConditionalGeneration"


def install() -> None:
    """Register the model with a processor that only makes a blank image: images arrive processed (images.py).

    vLLM asks the processor only for a dummy image, to size its caches and to warm up.
    Gemma 3's own loads the tokenizer twice more in each process, which takes 10 s, and needs further packages.
    """
    from vllm import ModelRegistry
    from vllm.model_executor.models import gemma3_mm
    from vllm.multimodal import MULTIMODAL_REGISTRY

    from engines.vllm.images import image_model

    class Info(gemma3_mm.Gemma3ProcessingInfo):
        def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
            return {"image": self.get_hf_config().mm_tokens_per_image}  # type: ignore[no-untyped-call] # vLLM's

    class Dummies(gemma3_mm.Gemma3DummyInputsBuilder):
        # vLLM calls this until 0.30, and the processor's get_dummy_inputs since.
        def get_dummy_processor_inputs(self, *args: Any, **kwargs: Any) -> Any:
            return None

    class Processor(gemma3_mm.Gemma3MultiModalProcessor):
        def get_dummy_inputs(self, *args: Any, **kwargs: Any) -> Any:
            return types.SimpleNamespace()

        def apply(self, *args: Any, **kwargs: Any) -> Any:
            images = image_model(self.info.ctx.model_config)
            return images.blank() if images is not None else {"prompt_token_ids": []}

    register = MULTIMODAL_REGISTRY.register_processor(Processor, info=Info, dummy_inputs=Dummies)
    # The class, not its name: vLLM inspects a named class in another process, where `install` has not run.
    model = type(ARCHITECTURE, (gemma3_mm.Gemma3ForConditionalGeneration,), {})
    ModelRegistry.register_model(ARCHITECTURE, register(model))
