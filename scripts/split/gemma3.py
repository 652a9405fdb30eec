# SPDX-License-Identifier: Apache-2.0
"""Split Gemma 3 into a text checkpoint for text engines, and tower and projector under their published names."""

from collections.abc import Mapping
from typing import Any

from scripts.split.errors import SplitError
from scripts.split.plan import OutputTensor, Part, Plan, Shape
from scripts.split.routes import TRANSFORMERS, route
from scripts.split.source import Source
from scripts.split.text import text_part
from scripts.split.verify import compare

# SigLIP's pooling head: Gemma 3 does not use it, and published checkpoints lack it.
_UNUSED = "head."
_TOWER = "vision_tower.vision_model."


def plan(source: Source) -> Plan:
    """Plan the split; raises SplitError if config.json lacks text_config or vision_config."""
    config = source.config
    text, vision = config.get("text_config"), config.get("vision_config")
    if not text or not vision:
        raise SplitError("config.json needs text_config and vision_config.")
    routed = route(source.tensors, TRANSFORMERS)
    tower = {name.removeprefix("vision_model."): old for name, old in routed.vision.items()}
    names = {f"{_TOWER}{name}": old for name, old in tower.items() if not name.startswith(_UNUSED)}
    names |= {f"multi_modal_projector.{name}": old for name, old in routed.projector.items()}
    language = text_part(source, {"model_type": "gemma3_text", **text}, routed.text)
    part = Part(
        {
            **vision,
            "model_type": "siglip_gemma3",
            "mm_tokens_per_image": config.get("mm_tokens_per_image", 256),
            "llm_hidden_size": language.width(),
        },
        tuple(OutputTensor(new, source.tensors[old].shape, (old,)) for new, old in names.items()),
    )
    compare(part.shapes(), _expected_shapes(vision, language.width()), "vision")
    return Plan(language, part)


def _expected_shapes(vision: Mapping[str, Any], width: int) -> dict[str, Shape]:
    """Shapes of transformers' tower under its published names, and of the projector to `width`."""
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**{**vision, "model_type": "siglip_vision_model", "vision_use_head": False})
    with torch.device("meta"):
        tower = SiglipVisionModel(config).state_dict()
    return {f"{_TOWER}{name}": tuple(tensor.shape) for name, tensor in tower.items()} | {
        "multi_modal_projector.mm_input_projection_weight": (config.hidden_size, width),
        "multi_modal_projector.mm_soft_emb_norm.weight": (config.hidden_size,),
    }
