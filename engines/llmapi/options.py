# SPDX-License-Identifier: Apache-2.0
"""From the engine's options to the arguments of TensorRT-LLM's `LLM`."""

from pathlib import Path
from typing import Any

from common.checkpoint import read_json
from engines.options import EngineOptions

# Names under which vLLM has the same; TensorRT-LLM's own names are taken as they are.
SYNONYMS = {
    "max_model_len": "max_seq_len",
    "max_num_seqs": "max_batch_size",
    "max_num_batched_tokens": "max_num_tokens",
}
# Samplers that know penalties and bad words; the default one passes over them in silence.
PENALISING = ("TRTLLMSampler",)


def llm_arguments(options: EngineOptions) -> dict[str, Any]:
    """Keyword arguments of `LLM`, which itself refuses a name that it does not have.

    Raises ValueError where an option is given by two names.
    """
    given: dict[str, Any] = {}
    for name, value in options.passed.items():
        own = SYNONYMS.get(name, name)
        if own in given:
            raise ValueError(f"engine option '{own}' is given twice, once by the name of another engine")
        given[own] = value
    return {"model": options.model_path, **_defaults(Path(options.model_path)), **given}


def own_sampling(checkpoint: Path) -> dict[str, Any]:
    """The sampling parameters that the checkpoint's authors recommend, by the contract's names."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    config = read_json(checkpoint / "generation_config.json")
    return {name: config[name] for name in names if config.get(name) is not None}


def sees(checkpoint: Path) -> bool:
    """Whether it is a whole Gemma 3, whose pictures the engine itself reads."""
    config = read_json(checkpoint / "config.json")
    return config.get("model_type") == "gemma3" and "vision_config" in config


def _defaults(checkpoint: Path) -> dict[str, Any]:
    """What this project's requests need, unless the options say otherwise."""
    if sees(checkpoint):
        # A picture's tokens see each other: it must be read whole, by an attention with masks, and not out of a cache
        # of which a part of it may be gone.
        whole = {"enable_chunked_prefill": False, "attn_backend": "FLASHINFER"}
        return {"guided_decoding_backend": "xgrammar", "kv_cache_config": {"enable_block_reuse": False}, **whole}
    # Without chunks a prompt longer than max_num_tokens would be refused.
    return {"guided_decoding_backend": "xgrammar", "enable_chunked_prefill": True}
