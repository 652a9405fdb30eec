# SPDX-License-Identifier: Apache-2.0
"""The language model's part: a causal-LM config that old and new engines can read, and its tensors."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from scripts.split import internlm2
from scripts.split.errors import SplitError
from scripts.split.plan import OutputTensor, Part
from scripts.split.source import Source

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
# No longer fields of the classes in transformers 5, which still reads them, as do all earlier versions.
_LEGACY = (
    "rope_theta",
    "rope_scaling",
    "rope_local_base_freq",
    "partial_rotary_factor",
    "sliding_window_pattern",
    "_sliding_window_pattern",
)


def text_part(source: Source, inner: Mapping[str, Any], names: Mapping[str, str]) -> Part:
    """Plan the language model as a checkpoint of its own.

    inner: its configuration inside the source's. names: its tensors, name in a causal LM -> name in the source.
    Raises SplitError for a language model that no causal-LM class of transformers runs.
    """
    from transformers import __version__

    if inner.get("model_type") == "internlm2":
        config, tensors = internlm2.as_llama(source, inner, names)
    else:
        config = internlm2.internlm3_as_llama(inner) if inner.get("model_type") == "internlm3" else dict(inner)
        tensors = {new: OutputTensor(new, source.tensors[old].shape, (old,)) for new, old in names.items()}
    # An engine may read only this config. If both configs have ids, those of the whole model are right.
    config |= {key: source.config[key] for key in _TOKEN_IDS if source.config.get(key) is not None}
    tidied = _tidied(config)
    tied = _tied(source, inner, {name: tensor.sources[0] for name, tensor in tensors.items()})
    if tied:
        tensors.pop(HEAD, None)
    # Without a version transformers assumes that the tokenizer beside the config needs a fix.
    last = {
        "tie_word_embeddings": tied,
        "transformers_version": source.config.get("transformers_version") or __version__,
    }
    return Part({**tidied, **last}, tuple(tensors.values()))


def _tidied(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the fields of the model's configuration class; old files also have dozens of generation defaults."""
    from transformers import CONFIG_MAPPING, PreTrainedConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model_type = str(config.get("model_type", ""))
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type)
    if architecture is None:
        raise SplitError(
            f"the language model '{model_type}' is not known; known: internlm2, internlm3 and the causal language "
            "models of transformers (qwen2, qwen3, qwen3_moe, llama, gemma3_text and so on)."
        )
    config_class = CONFIG_MAPPING[model_type]
    own = {field.name for field in fields(config_class)} - {f.name for f in fields(PreTrainedConfig)}
    kept = own | {*_LEGACY, *_TOKEN_IDS, "rope_parameters"}
    # transformers 5 saves some fields by a second name, such as num_experts as num_local_experts.
    second = {saved: name for name, saved in config_class.attribute_map.items() if name in own}
    tidy = {second.get(key, key): value for key, value in config.items() if key in kept or key in second}
    return {"architectures": [architecture], "model_type": model_type, **tidy, **_older_rope(config)}


def _older_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Convert `rope_parameters` of transformers 5 to the keys of 4; engines without them silently use defaults."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return {}
    older: dict[str, Any] = {}
    if isinstance(rope.get("sliding_attention"), Mapping):
        older["rope_local_base_freq"] = rope["sliding_attention"].get("rope_theta")
    rope = rope.get("full_attention") or rope
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    older["rope_theta"] = rope.get("rope_theta")
    return {key: value for key, value in older.items() if value is not None}


def _tied(source: Source, inner: Mapping[str, Any], names: Mapping[str, str]) -> bool:
    """Whether the output layer is the embedding, by the weights: the flag may be in either config, or missing."""
    declared = [config["tie_word_embeddings"] for config in (source.config, inner) if "tie_word_embeddings" in config]
    if HEAD in names:
        return (not declared or any(declared)) and EMBEDDING in names and source.equal(names[HEAD], names[EMBEDDING])
    if declared and not any(declared):
        raise SplitError(f"the checkpoint lacks {HEAD}, which its config does not tie to the embedding.")
    return True
