# SPDX-License-Identifier: Apache-2.0
"""Convert InternLM2 and InternLM3 to Llama.

InternLM2 has other names, and one fused matrix per layer for query, key and value; InternLM3 has only another config.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from scripts.split.errors import SplitError
from scripts.split.plan import OutputTensor
from scripts.split.source import Source

# InternLM2's name -> Llama's, for the parts between the dots of a tensor's name.
_NAMES = {
    "tok_embeddings": "embed_tokens",
    "output": "lm_head",
    "attention": "self_attn",
    "wo": "o_proj",
    "feed_forward": "mlp",
    "w1": "gate_proj",
    "w3": "up_proj",
    "w2": "down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_KEPT = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "rope_theta",
)
# Scalings with the same formula in InternLM2's code and in Llama's.
_ROPE_SCALINGS = ("dynamic", "linear")


def as_llama(
    source: Source, config: Mapping[str, Any], names: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, OutputTensor]]:
    """Llama's config and its tensors by name; raises SplitError for a rope scaling that Llama does not have."""
    heads, kv_heads = config["num_attention_heads"], _kv_heads(config)
    tensors: list[OutputTensor] = []
    for new, old in names.items():
        shape, llama = source.tensors[old].shape, ".".join(_NAMES.get(word, word) for word in new.split("."))
        if ".wqkv." not in new:
            tensors.append(OutputTensor(llama, shape, (old,)))
            continue
        head_dim = shape[0] // (heads + 2 * kv_heads)
        for kind, count in (("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)):
            build = partial(rows_of, kind=kind, queries=heads // kv_heads, head_dim=head_dim)
            rows = (count * head_dim, *shape[1:])
            tensors.append(OutputTensor(llama.replace("wqkv", kind), rows, (old,), build))
    return _llama_config(config), {tensor.name: tensor for tensor in tensors}


def internlm3_as_llama(config: Mapping[str, Any]) -> dict[str, Any]:
    """Llama's config for InternLM3, whose tensors have Llama's names; raises SplitError for biases."""
    biased = [key for key in ("bias", "qkv_bias") if config.get(key)]
    if biased:
        raise SplitError(f"{biased[0]} of InternLM3 is set in config.json; only false is known here.")
    return _llama_config(config) | {key: config[key] for key in ("head_dim",) if config.get(key)}


def rows_of(tensors: Sequence[torch.Tensor], kind: str, queries: int, head_dim: int) -> torch.Tensor:
    """Take the query, key or value rows out of wqkv (or out of its bias).

    Rows of wqkv come in one group per key-value head: `queries` query heads, one key head, one value head, `head_dim`
    rows each.
    """
    (fused,) = tensors
    groups = fused.view(-1, queries + 2, head_dim, *fused.shape[1:])
    taken = {"q_proj": groups[:, :queries], "k_proj": groups[:, queries], "v_proj": groups[:, queries + 1]}[kind]
    return taken.reshape(-1, *fused.shape[1:])


def _llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    llama = {"model_type": "llama"} | {key: config[key] for key in _KEPT if key in config}
    llama |= {"num_key_value_heads": _kv_heads(config), "attention_bias": bool(config.get("bias", False))}
    scaling = config.get("rope_scaling")
    if scaling:
        llama["rope_scaling"] = _rope_scaling(scaling)
    return llama


def _rope_scaling(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Write the scaling with both keys, the old `type` and the newer `rope_type`.

    Dynamic scaling has no effect up to max_position_embeddings in any engine. Beyond it InternLM2 and transformers
    recompute the base as the sequence grows, but vLLM's table ends at max_position_embeddings.
    """
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind not in _ROPE_SCALINGS:
        raise SplitError(f"rope_scaling '{kind}' of InternLM2 is not known; known: {', '.join(_ROPE_SCALINGS)}.")
    return {"type": kind, "rope_type": kind, "factor": float(scaling["factor"])}


def _kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])
