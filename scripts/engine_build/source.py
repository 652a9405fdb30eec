# SPDX-License-Identifier: Apache-2.0
"""Read the properties of a Hugging Face checkpoint that a build depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.checkpoint import Checkpoint, read_json
from scripts.shared.errors import EngineError
from scripts.shared.weights import weight_bytes

# Architecture -> folder of TensorRT-LLM's examples with its convert_checkpoint.py.
CONVERTERS = {
    "Qwen2ForCausalLM": "qwen",
    "Qwen3ForCausalLM": "qwen",
    "LlamaForCausalLM": "llama",
    "Gemma3ForCausalLM": "gemma",
}
_PREPARE = "`triton-chat prepare {0}` prints the folder of its parts"
_SPLIT = {
    "internvl_chat": _PREPARE,
    "internvl": _PREPARE,
    "gemma3": "`triton-chat split {0} OUTPUT` writes its language model, which is served without images",
}
# Defaults of Gemma3TextConfig.
_GEMMA3_PATTERN, _GEMMA3_WINDOW = 6, 4096


@dataclass(frozen=True, slots=True)
class Source:
    """A causal LM in Hugging Face layout.

    converter: value of CONVERTERS. quantised: method of a quantised checkpoint, else "".
    windows: attention windows of one period of the layers, None for all tokens; empty if no layer has a window.
    tile_tokens: tokens of an image tile; 0 for a text model. bits: of a stored weight.
    """

    folder: Path
    model_type: str
    converter: str
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    positions: int
    quantised: str
    windows: tuple[int | None, ...]
    tile_tokens: int
    bits: int
    weight_bytes: int

    @classmethod
    def open(cls, folder: Path) -> "Source":
        """Read a checkpoint; raises EngineError with a hint if it is not of a supported kind."""
        try:
            config, checkpoint = read_json(folder / "config.json"), Checkpoint.load(folder)
            vision = read_json(folder / "vision" / "config.json")
        except ValueError as error:
            raise EngineError(f"{error}.") from error
        architecture = _architecture(config, folder)
        try:
            heads, hidden = config["num_attention_heads"], config["hidden_size"]
            return cls(
                folder=folder,
                model_type=checkpoint.model_type,
                converter=CONVERTERS[architecture],
                layers=config["num_hidden_layers"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_size=config.get("head_dim") or hidden // heads,
                hidden_size=hidden,
                intermediate_size=config["intermediate_size"],
                vocab_size=checkpoint.vocab_size,
                positions=checkpoint.max_position_embeddings,
                quantised=(config.get("quantization_config") or {}).get("quant_method", ""),
                windows=_windows(config),
                tile_tokens=0 if architecture == "Gemma3ForCausalLM" else _tile_tokens(vision),
                bits=32 if (config.get("dtype") or config.get("torch_dtype")) == "float32" else 16,
                weight_bytes=_text_bytes(folder),
            )
        except KeyError as error:
            raise EngineError(f"'{folder}/config.json' has no {error}.") from error


def _architecture(config: Mapping[str, Any], folder: Path) -> str:
    model_type = str(config.get("model_type"))
    if model_type in _SPLIT:
        raise EngineError(f"'{folder}' holds a whole {model_type}: {_SPLIT[model_type].format(folder)}. Give that one.")
    architecture = next(iter(config.get("architectures") or ()), "no architecture")
    if architecture not in CONVERTERS:
        known = ", ".join(CONVERTERS)
        raise EngineError(f"'{folder}' is of {architecture}; engines are built from {known}.")
    return architecture


def _windows(config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Attention windows of Gemma 3's layers; other families do not use the window in their config."""
    if config.get("model_type") != "gemma3_text":
        return ()
    types: Sequence[str] = config.get("layer_types") or ()
    period = types.index("full_attention") + 1 if "full_attention" in types else _pattern(config)
    return (*(config.get("sliding_window", _GEMMA3_WINDOW),) * (period - 1), None)


def _pattern(config: Mapping[str, Any]) -> int:
    return int(config.get("sliding_window_pattern") or _GEMMA3_PATTERN)


def _tile_tokens(vision: Mapping[str, Any]) -> int:
    if not vision:
        return 0
    side = vision["image_size"] // vision["patch_size"] * vision.get("downsample_ratio", 0.5)
    return int(side) ** 2


def _text_bytes(folder: Path) -> int:
    """Bytes of the language model, without the vision part."""
    vision = sum(file.stat().st_size for file in (folder / "vision").glob("*.safetensors"))
    return weight_bytes(folder) - vision
