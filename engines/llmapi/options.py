# SPDX-License-Identifier: Apache-2.0
"""Turn the engine's options into the arguments of TensorRT-LLM's `LLM`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorrt_llm
from packaging.version import Version

from common.checkpoint import read_json
from engines.llmapi.synonyms import SYNONYMS
from engines.options import EngineOptions

# Until TensorRT-LLM 1.2 the default sampler silently ignores penalties and bad words; this one knows them. Since 1.3
# the default one does, and is the only one.
PENALISING, ONE_SAMPLER = "TRTLLMSampler", Version("1.3")


def llm_arguments(options: EngineOptions) -> dict[str, Any]:
    """Build the keyword arguments of `LLM`, which itself refuses unknown names.

    Raises ValueError if an option is given under both of its names.
    """
    given: dict[str, Any] = {}
    for name, value in options.passed.items():
        own = SYNONYMS.get(name, name)
        if own in given:
            raise ValueError(f"engine option '{own}' is given twice, once by the name of another engine")
        given[own] = value
    return {"model": options.model_path, **_defaults(Path(options.model_path)), **given}


def penalises(arguments: Mapping[str, Any]) -> bool:
    """Whether the sampler of an `LLM` with these arguments knows penalties and bad words."""
    return arguments.get("sampler_type") == PENALISING or Version(tensorrt_llm.__version__) >= ONE_SAMPLER


def own_sampling(checkpoint: Path) -> dict[str, Any]:
    """The sampling parameters that the checkpoint recommends, by the contract's names."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    config = read_json(checkpoint / "generation_config.json")
    return {name: config[name] for name in names if config.get(name) is not None}


def has_vision(checkpoint: Path) -> bool:
    """Whether the checkpoint is a Gemma 3 with its vision tower, which the engine itself runs."""
    config = read_json(checkpoint / "config.json")
    return config.get("model_type") == "gemma3" and "vision_config" in config


def _defaults(checkpoint: Path) -> dict[str, Any]:
    """Defaults that this project's requests need."""
    if has_vision(checkpoint):
        # Attention within an image is bidirectional: an image must be prefilled whole, by an attention with masks, and
        # never be completed from a cache that holds only a part of it.
        whole = {"enable_chunked_prefill": False, "attn_backend": "FLASHINFER"}
        return {"guided_decoding_backend": "xgrammar", "kv_cache_config": {"enable_block_reuse": False}, **whole}
    # Without chunks a prompt longer than max_num_tokens would be refused.
    return {"guided_decoding_backend": "xgrammar", "enable_chunked_prefill": True}
