# SPDX-License-Identifier: Apache-2.0
"""The checkpoint layouts that can be split."""

from collections.abc import Callable, Mapping
from typing import Any

from scripts.split import gemma3, internvl
from scripts.split.errors import SplitError
from scripts.split.plan import Plan
from scripts.split.source import Source

# `model_type` of config.json -> function that plans the split.
LAYOUTS: dict[str, Callable[[Source], Plan]] = {
    "internvl_chat": internvl.plan_original,
    "internvl": internvl.plan_transformers,
    "gemma3": gemma3.plan,
}


def check_splittable(config: Mapping[str, Any]) -> None:
    """Raises SplitError for a text model, an unknown model_type or a quantised checkpoint."""
    model_type = str(config.get("model_type", ""))
    if model_type not in LAYOUTS:
        if _is_text_model(config):
            raise SplitError(f"'{model_type}' is a text model already: there is nothing to split.")
        classes = ", ".join(config.get("architectures") or ["no architecture"])
        known = ", ".join(sorted(LAYOUTS))
        raise SplitError(f"do not know how to split model_type '{model_type}' ({classes}); known: {known}.")
    for part in (config, config.get("text_config"), config.get("llm_config")):
        method = (part or {}).get("quantization_config")
        if method:
            raise SplitError(
                f"the checkpoint is quantised ({method.get('quant_method', 'by an unnamed method')}). "
                "Split the unquantised checkpoint and quantise the result."
            )


def _is_text_model(config: Mapping[str, Any]) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    known = config.get("model_type") in (*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "internlm2")
    return known and not config.get("vision_config")
