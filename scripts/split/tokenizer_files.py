# SPDX-License-Identifier: Apache-2.0
"""Write the tokenizer, so that it loads without the checkpoint's own code, and copy generation settings."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from common.tokenizer import ChatTokenizer
from scripts.split.config import read
from scripts.split.errors import SplitError, listed
from scripts.split.sentencepiece_bpe import tokenizer_from_sentencepiece
from scripts.split.source import write_json

TOKENIZER, TOKENIZER_CONFIG, PIECES = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
_COPIED = (
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
# Copied unless the tokenizer.json is made from them, as it has their content then.
_SLOW_FILES = (PIECES, "added_tokens.json")
# Settings of the checkpoint's own code, and of an image processor, which a split does not have.
_DROPPED = ("auto_map", "processor_class", "sp_model_kwargs")


def write_tokenizer(source: Path, target: Path, needed: Sequence[str]) -> None:
    """Write the tokenizer's files into `target`, which already has its config.json.

    needed: tokens that must be in its vocabulary. Raises SplitError if the tokenizer cannot be made, does not load
    without remote code, or lacks one of them.
    """
    config = read(source / TOKENIZER_CONFIG)
    added = added_tokens(source, config)
    if (source / TOKENIZER).is_file():
        _copy(source, target, (TOKENIZER, *_SLOW_FILES))
    else:
        built, config = _built(source, config, added)
        built.save(str(target / TOKENIZER))
    _copy(source, target, _COPIED)
    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    # Classes of transformers rebuild the tokenizer and read the tokens outside its vocabulary only from here.
    outside = {str(token["id"]): _flags(token) for token in read(target / TOKENIZER).get("added_tokens", ())}
    changed = {"tokenizer_class": _known_class(config), "added_tokens_decoder": outside}
    write_json(target / TOKENIZER_CONFIG, {**kept, **changed})
    _check(target, needed, added)


def added_tokens(source: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Tokens outside the vocabulary by id: from tokenizer_config.json, then special ones from added_tokens.json."""
    listed_tokens = config.get("added_tokens_decoder") or {}
    tokens = {int(key): AddedToken(**_flags(value)) for key, value in listed_tokens.items()}
    for content, key in read(source / "added_tokens.json").items():
        tokens.setdefault(int(key), AddedToken(content, special=True, normalized=False))
    return dict(sorted(tokens.items()))


def _flags(token: Mapping[str, Any]) -> dict[str, Any]:
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {name: token[name] for name in names if name in token}


def _built(source: Path, config: dict[str, Any], added: Mapping[int, AddedToken]) -> tuple[Tokenizer, dict[str, Any]]:
    """Build a tokenizer from the slow tokenizer's files; returns it and its config."""
    if (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        return _qwen2(source, config, added), config
    if (source / PIECES).is_file():
        # InternLM2's and Llama's tokenizers put <s> before a text by default.
        config = {"add_bos_token": True, "add_eos_token": False, **config, "tokenizer_class": None}  # nosec B105 # a token's or a value's text, no secret
        return tokenizer_from_sentencepiece(source / PIECES, config, added), config
    raise SplitError(f"'{source}' has no tokenizer ({TOKENIZER}, vocab.json with merges.txt, or {PIECES}).")


def _qwen2(source: Path, config: Mapping[str, Any], added: Mapping[int, AddedToken]) -> Tokenizer:
    from transformers.convert_slow_tokenizer import Qwen2Converter

    name = str(config.get("tokenizer_class", ""))
    if name.removesuffix("Fast") != "Qwen2Tokenizer":
        raise SplitError(f"vocab.json and merges.txt of '{name}' without {TOKENIZER}; known: Qwen2Tokenizer.")
    lines = (source / "merges.txt").read_text(encoding="utf-8").split("\n")
    pairs = (line.partition(" ") for line in lines if line and not line.startswith("#version"))
    merges = [(left, right) for left, _, right in pairs]
    converter = Qwen2Converter(None)  # type: ignore[no-untyped-call] # transformers does not annotate it
    tokenizer: Tokenizer = converter.converted(vocab=read(source / "vocab.json"), merges=merges)
    tokenizer.add_tokens(list(added.values()))
    return tokenizer


def _known_class(config: Mapping[str, Any]) -> str:
    """The tokenizer's class if transformers has it, else the generic class that only reads tokenizer.json."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    name = config.get("tokenizer_class")
    return str(name) if name and tokenizer_class_from_name(name) is not None else "PreTrainedTokenizerFast"


def _check(target: Path, needed: Sequence[str], added: Mapping[int, AddedToken]) -> None:
    try:
        tokenizer = ChatTokenizer.load(target)
    except ValueError as error:
        raise SplitError(f"the tokenizer does not load without the checkpoint's own code: {error}.") from error
    moved = [token.content for key, token in added.items() if tokenizer.token_id(token.content) != key]
    if moved:
        raise SplitError(f"the tokenizer gives other ids than the checkpoint says to: {listed(moved)}.")
    lacking = [token for token in needed if tokenizer.token_id(token) is None]
    if lacking:
        raise SplitError(f"the tokenizer lacks {', '.join(lacking)}, which stand for images in a prompt.")


def _copy(source: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
