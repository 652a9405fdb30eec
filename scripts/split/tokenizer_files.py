# SPDX-License-Identifier: Apache-2.0
"""The files beside the weights: a tokenizer that loads without the checkpoint's own code, and generation settings."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from common.tokenizer import ChatTokenizer
from scripts.split.errors import SplitError, listed
from scripts.split.sentencepiece_bpe import tokenizer_from_sentencepiece
from scripts.split.source import read, write_json

TOKENIZER, TOKENIZER_CONFIG, PIECES = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
_COPIED = (
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
# Copied unless the tokenizer.json is made from them: what they say is in it then.
_SLOW_FILES = (PIECES, "added_tokens.json")
# Code that comes with the checkpoint, and a processor for the images that the split has no more.
_DROPPED = ("auto_map", "processor_class", "sp_model_kwargs")


def write_tokenizer(source: Path, target: Path, needed: Sequence[str]) -> None:
    """Put the tokenizer's files into `target`, which has its config.json already.

    needed: tokens that must be in its vocabulary. Raises SplitError where the tokenizer cannot be made, loaded without
    remote code, or lacks one of them.
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
    # A class of transformers rebuilds the tokenizer and takes the tokens beside its vocabulary from here alone.
    beside = {str(token["id"]): _flags(token) for token in read(target / TOKENIZER).get("added_tokens", ())}
    changed = {"tokenizer_class": _known_class(config), "added_tokens_decoder": beside}
    write_json(target / TOKENIZER_CONFIG, {**kept, **changed})
    _check(target, needed, added)


def added_tokens(source: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Tokens by id beside the vocabulary: tokenizer_config.json's, then added_tokens.json's as special ones."""
    listed_tokens = config.get("added_tokens_decoder") or {}
    tokens = {int(key): AddedToken(**_flags(value)) for key, value in listed_tokens.items()}
    for content, key in read(source / "added_tokens.json").items():
        tokens.setdefault(int(key), AddedToken(content, special=True, normalized=False))
    return dict(sorted(tokens.items()))


def _flags(token: Mapping[str, Any]) -> dict[str, Any]:
    names = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    return {name: token[name] for name in names if name in token}


def _built(source: Path, config: dict[str, Any], added: Mapping[int, AddedToken]) -> tuple[Tokenizer, dict[str, Any]]:
    """(a tokenizer made from the slow tokenizer's files, the config that goes with it)."""
    if (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        return _qwen2(source, config, added), config
    if (source / PIECES).is_file():
        # InternLM2's and Llama's tokenizers put <s> before a text unless told otherwise.
        config = {"add_bos_token": True, "add_eos_token": False, **config, "tokenizer_class": None}  # nosec B105 # a token's or a value's text, no secret
        return tokenizer_from_sentencepiece(source / PIECES, config, added), config
    raise SplitError(f"'{source}' has no tokenizer ({TOKENIZER}, vocab.json with merges.txt, or {PIECES}).")


def _qwen2(source: Path, config: Mapping[str, Any], added: Mapping[int, AddedToken]) -> Tokenizer:
    from transformers.convert_slow_tokenizer import Qwen2Converter

    name = str(config.get("tokenizer_class", ""))
    if name.removesuffix("Fast") != "Qwen2Tokenizer":
        raise SplitError(f"vocab.json and merges.txt of '{name}' without {TOKENIZER}; known: Qwen2Tokenizer.")
    lines = (source / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokenizer: Tokenizer = Qwen2Converter(None).converted(vocab=read(source / "vocab.json"), merges=merges)
    tokenizer.add_tokens(list(added.values()))
    return tokenizer


def _known_class(config: Mapping[str, Any]) -> str:
    """The tokenizer's class where transformers has it, else the one that does as tokenizer.json says."""
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
