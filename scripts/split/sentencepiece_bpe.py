# SPDX-License-Identifier: Apache-2.0
"""Convert a sentencepiece BPE model (InternLM2's, Llama's) to a tokenizer.json that gives the same ids.

Byte fallback and the dummy space before a text are kept. Slow tokenizers encode the texts between special tokens one by
one, so each of them gets that space, here too. <s> precedes a text if `add_bos_token` is set.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors

from scripts.split.errors import SplitError

_SPACE = "▁"
# Numbers of sentencepiece_model.proto: the model type BPE, and types of pieces.
_BPE, _NORMAL, _CONTROL, _USER_DEFINED = 2, 1, 3, 4
# Texts that are hard to convert: runs of spaces, digits, scripts, bytes outside the vocabulary, line ends.
SAMPLES = (
    "What is in the picture?",
    "  two  spaces, a\ttab\nand lines\n\n",
    "1984 + 3.14 = 1987.14",
    "图片里有什么？ Что на картинке? この画像",
    "naïve café 🐉 \u200b\x07 end ",
    "def f(x):\n    return [x ** 2 for _ in range(10)]",
)


def tokenizer_from_sentencepiece(path: Path, config: Mapping[str, Any], added: Mapping[int, AddedToken]) -> Tokenizer:
    """Convert a model, and compare with sentencepiece itself on SAMPLES.

    config: tokenizer_config.json. added: tokens by id; an id inside the model's vocabulary renames that piece, as
    InternLM2 does with unused pieces. Raises SplitError for a model of another type, or if ids differ.
    """
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(path))
    proto = _parsed(path)
    tokenizer = Tokenizer(_bpe(proto, added))
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    tokenizer.decoder = _decoder(proto.normalizer_spec)
    wrong = [text for text in SAMPLES if tokenizer.encode(text).ids != processor.encode(text)]
    if wrong:
        raise SplitError(f"'{path}' converted gives other ids than sentencepiece, for example for {wrong[0]!r}.")
    # After the comparison, as sentencepiece does not have these tokens.
    tokenizer.add_tokens(list((_own_tokens(proto, added) | dict(added)).values()))
    _add_ends(tokenizer, config)
    return tokenizer


def _parsed(path: Path) -> Any:
    # sentencepiece's own module requires a newer protobuf than the serving environment has.
    from transformers.utils import sentencepiece_model_pb2_new

    # protobuf creates the classes of such a module at import.
    proto = sentencepiece_model_pb2_new.ModelProto()  # type: ignore[attr-defined]
    proto.ParseFromString(path.read_bytes())
    if proto.trainer_spec.model_type != _BPE:
        raise SplitError(f"'{path}' is not a BPE model; only those are known.")
    return proto


def _bpe(proto: Any, added: Mapping[int, AddedToken]) -> models.BPE:
    from transformers.convert_slow_tokenizer import generate_merges

    pieces = [added[index].content if index in added else piece.piece for index, piece in enumerate(proto.pieces)]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == _NORMAL and piece.piece in vocab}
    merges = generate_merges({piece: vocab[piece] for piece in scores}, scores)
    spec = proto.trainer_spec
    return models.BPE(vocab, merges, unk_token=spec.unk_piece, fuse_unk=True, byte_fallback=spec.byte_fallback)


def _own_tokens(proto: Any, added: Mapping[int, AddedToken]) -> dict[int, AddedToken]:
    return {
        index: AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
        for index, piece in enumerate(proto.pieces)
        if piece.type in (_CONTROL, _USER_DEFINED) and index not in added
    }


def _normalizer(spec: Any) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", _SPACE)])


def _decoder(spec: Any) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if spec.add_dummy_prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    return decoders.Sequence(steps)


def _add_ends(tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """Add <s> before and </s> after a text, if the config says so."""
    around = {
        "bos": _content(config.get("bos_token") or "<s>") if config.get("add_bos_token") else "",
        "eos": _content(config.get("eos_token") or "</s>") if config.get("add_eos_token") else "",
    }
    used = [token for token in around.values() if token]
    unknown = [token for token in used if tokenizer.token_to_id(token) is None]
    if unknown:
        raise SplitError(f"the tokenizer has no token {unknown[0]}, which its config puts around a text.")
    if used:
        single = " ".join(filter(None, (around["bos"], "$A", around["eos"])))
        pairs = [(token, tokenizer.token_to_id(token)) for token in used]
        tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)


def _content(token: Any) -> str:
    return str(token["content"] if isinstance(token, Mapping) else token)
