# SPDX-License-Identifier: Apache-2.0
"""Split InternVL2.5 and its successors, in the original layout (InternVLChatModel) and in that of transformers."""

from collections.abc import Mapping
from typing import Any

from scripts.split.errors import SplitError
from scripts.split.internvit import IMAGE_TOKENS, canonical_config, expected_shapes, tile_settings
from scripts.split.plan import OutputTensor, Part, Plan, concatenated
from scripts.split.routes import TRANSFORMERS, Route, Routed, route
from scripts.split.source import Source
from scripts.split.text import text_part
from scripts.split.verify import compare

_ORIGINAL: tuple[Route, ...] = (
    ("language_model.", "text", ""),
    ("vision_model.encoder.layers.", "vision", "layers."),
    ("vision_model.embeddings.", "vision", "embeddings."),
    ("mlp1.0.", "projector", "projector.norm."),
    ("mlp1.1.", "projector", "projector.fc1."),
    ("mlp1.3.", "projector", "projector.fc2."),
)
# transformers' name -> ours, in the order of replacement; q, k and v are fused afterwards.
_VISION_NAMES = (
    ("embeddings.cls_token", "embeddings.class_embedding"),
    ("embeddings.patch_embeddings.projection.", "embeddings.patch_embedding."),
    ("embeddings.position_embeddings", "embeddings.position_embedding"),
    ("encoder.layer.", "layers."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    (".lambda_1", ".ls1"),
    (".lambda_2", ".ls2"),
    (".attention.projection_layer.", ".attn.proj."),
    (".attention.", ".attn."),
)
_PROJECTOR_NAMES = {"layer_norm": "norm", "linear_1": "fc1", "linear_2": "fc2"}


def plan_original(source: Source) -> Plan:
    """Plan the split of the original layout; raises SplitError for settings that no published model has."""
    config = source.config
    _require(config, select_layer=-1, ps_version="v2")
    language, vision = _inner(config, "llm_config"), _inner(config, "vision_config")
    canonical = canonical_config(
        vision,
        config.get("force_image_size") or vision.get("image_size"),
        (bool(vision.get("qkv_bias", False)), bool(vision.get("qk_normalization", False))),
        downsample_ratio=config.get("downsample_ratio", 0.5),
        **tile_settings(source, config),
    )
    if config.get("dynamic_image_size") is False:
        canonical["max_dynamic_patch"] = canonical["min_dynamic_patch"] = 1
    routed = route(source.tensors, _ORIGINAL)
    return _plan(source, language, canonical, routed, _plain(source, routed.vision | routed.projector))


def plan_transformers(source: Source) -> Plan:
    """Plan the split of transformers' layout; raises SplitError for settings that no published model has."""
    from transformers import InternVLVisionConfig

    config = source.config
    _require(config, vision_feature_layer=-1, vision_feature_select_strategy="default", projector_hidden_act="gelu")
    language = _inner(config, "text_config")
    # These files may omit values that equal the class's defaults.
    vision = InternVLVisionConfig(**_inner(config, "vision_config")).to_dict()
    _require(vision, use_mean_pooling=True)
    canonical = canonical_config(
        vision,
        vision["image_size"],
        (vision["attention_bias"], vision["use_qk_norm"]),
        downsample_ratio=config.get("downsample_ratio", 0.5),
        **tile_settings(source, {}),
    )
    tokens = int((canonical["image_size"] // canonical["patch_size"] * canonical["downsample_ratio"]) ** 2)
    _require(config, image_seq_length=tokens)
    routed = route(source.tensors, TRANSFORMERS)
    return _plan(source, language, canonical, routed, _renamed(source, routed))


def _plan(
    source: Source,
    language: Mapping[str, Any],
    canonical: Mapping[str, Any],
    routed: Routed,
    vision: tuple[OutputTensor, ...],
) -> Plan:
    text = text_part(source, language, routed.text)
    # InternVL3.5 on gpt-oss writes that model's format, by the checkpoint's own chat template, and no ChatML.
    own = {"family": "default"} if language.get("model_type") == "gpt_oss" else {}
    part = Part({**canonical, **own, "llm_hidden_size": text.width()}, vision)
    compare(part.shapes(), expected_shapes(part.config), "vision")
    return Plan(text, part, tuple(IMAGE_TOKENS.values()))


def _plain(source: Source, names: Mapping[str, str]) -> tuple[OutputTensor, ...]:
    return tuple(OutputTensor(new, source.tensors[old].shape, (old,)) for new, old in names.items())


def _renamed(source: Source, routed: Routed) -> tuple[OutputTensor, ...]:
    names = {_canonical_name(name): old for name, old in routed.vision.items()}
    for name, old in routed.projector.items():
        layer, _, kind = name.partition(".")
        names[f"projector.{_PROJECTOR_NAMES.get(layer, layer)}.{kind}"] = old
    fused = [_fused(source, names, name) for name in names if ".attn.q_proj." in name]
    parts = {old for tensor in fused for old in tensor.sources}
    return (*_plain(source, {new: old for new, old in names.items() if old not in parts}), *fused)


def _canonical_name(name: str) -> str:
    for theirs, ours in _VISION_NAMES:
        name = name.replace(theirs, ours)
    return name


def _fused(source: Source, names: Mapping[str, str], query: str) -> OutputTensor:
    """Fuse query, key and value rows, in this order, to the original layout's qkv."""
    fused = [query.replace("q_proj", f"{kind}_proj") for kind in "qkv"]
    missing = [name for name in fused if name not in names]
    if missing:
        raise SplitError(f"the vision tower lacks {', '.join(missing)}.")
    sources = tuple(names[name] for name in fused)
    shape = source.tensors[sources[0]].shape
    return OutputTensor(query.replace("q_proj", "qkv"), (3 * shape[0], *shape[1:]), sources, concatenated)


def _require(config: Mapping[str, Any], **required: Any) -> None:
    for key, value in required.items():
        if config.get(key, value) != value:
            raise SplitError(f"{key} is {config[key]!r} in config.json; only {value!r} is known here.")


def _inner(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = config.get(key)
    if not isinstance(inner, Mapping):
        raise SplitError(f"config.json has no {key}.")
    return inner
