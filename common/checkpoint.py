# SPDX-License-Identifier: Apache-2.0
"""Facts of a Hugging Face checkpoint, read from its JSON files."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Keys of the language model's configuration in vision-language checkpoints: Hugging Face's, InternVL's, DeepSeek-VL2's,
# and of Qwen's Omni models that of the part which has the language model.
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Facts of one checkpoint.

    model_type, architectures: of the whole model (`internvl_chat`, not its language model's `qwen2`).
    vocab_size: rows of the language model's embedding table, at least the tokenizer's size; prompt ids are below it.
    max_position_embeddings: the language model's maximum context in tokens.
    end_ids: ids that end an answer, the main one first; none for a model that writes no answers.
    """

    path: Path
    model_type: str
    architectures: tuple[str, ...]
    vocab_size: int
    max_position_embeddings: int
    end_ids: tuple[int, ...]
    pad_id: int

    @classmethod
    def load(cls, path: str | Path, *, generates: bool = True) -> "Checkpoint":
        """Read the files of a checkpoint's folder; raises ValueError naming the wrong path or key.

        generates: it writes answers, and must therefore name the ids that end them.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ValueError(f"checkpoint: '{folder}' is not a directory")
        config = read_json(folder / "config.json")
        if not config:
            raise ValueError(f"checkpoint: '{folder}' has no config.json")
        text_config = _text_config(config)
        generation = read_json(folder / "generation_config.json")
        end_ids = _end_ids(folder, (generation, config, text_config)) if generates else ()
        return cls(
            path=folder,
            model_type=str(config.get("model_type", "")),
            architectures=tuple(config.get("architectures") or ()),
            vocab_size=_size(text_config, "vocab_size", folder),
            max_position_embeddings=_size(text_config, "max_position_embeddings", folder),
            end_ids=end_ids,
            pad_id=_pad_id(folder, (generation, config, text_config), end_ids[0] if end_ids else 0),
        )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty if there is no such file; raises ValueError if it is not a JSON object."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"checkpoint: '{path}' is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint: '{path}' does not hold a JSON object")
    return content


def vision_config(folder: Path) -> dict[str, Any]:
    """The configuration of a split checkpoint's vision part, `vision/config.json`; empty if there is none.

    Raises ValueError if it is not a JSON object.
    """
    return read_json(folder / "vision" / "config.json")


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the language model, which may be inside another part's."""
    inner = next((config[name] for name in _TEXT_CONFIGS if isinstance(config.get(name), dict)), None)
    return config if inner is None else _text_config(inner)


def _size(config: dict[str, Any], key: str, folder: Path) -> int:
    # Published Gemma 3 configs omit values that equal their class's defaults.
    value = config[key] if key in config else _class_default(config.get("model_type"), key)
    if type(value) is not int or value < 1:
        raise ValueError(f"checkpoint: {key} in '{folder}/config.json' must be a positive integer, not {value!r}")
    return value


def _class_default(model_type: Any, key: str) -> Any:
    # Imported here as few checkpoints need it, and transformers takes a second to import.
    from transformers import AutoConfig

    try:
        return getattr(AutoConfig.for_model(str(model_type)), key, None)
    except ValueError:  # A model type that transformers does not know.
        return None


def _end_ids(folder: Path, configs: Iterable[dict[str, Any]]) -> tuple[int, ...]:
    for config in configs:
        value = config.get("eos_token_id")
        ids = tuple(value) if isinstance(value, list) else (value,)
        if ids and all(type(item) is int for item in ids):
            return ids
    end_id = _special_id(folder, "eos_token")
    if end_id is None:
        raise ValueError(f"checkpoint: '{folder}' names no eos_token_id in any of its configurations")
    return (end_id,)


def _pad_id(folder: Path, configs: Iterable[dict[str, Any]], default: int) -> int:
    for config in configs:
        if type(config.get("pad_token_id")) is int:
            return int(config["pad_token_id"])
    pad_id = _special_id(folder, "pad_token")
    return default if pad_id is None else pad_id


def _special_id(folder: Path, name: str) -> int | None:
    """The id of the tokenizer's special token `name`, or None."""
    token = read_json(folder / "tokenizer_config.json").get(name)
    content = token.get("content") if isinstance(token, dict) else token
    if content is None:
        return None
    for added in read_json(folder / "tokenizer.json").get("added_tokens", ()):
        if added["content"] == content:
            return int(added["id"])
    return None
