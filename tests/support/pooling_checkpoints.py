# SPDX-License-Identifier: Apache-2.0
"""Tiny random embedding models and a cross-encoder, in the layout of sentence-transformers, and what they compute.

The results are those of transformers in float32, with the pooling written out here.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.support.checkpoints import QWEN_IDS, SHAPE

BERT_SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
MATRYOSHKA = [32, 64, 128]
TEXTS = (
    "The cat sat on the mat.",
    "Paris is the capital of France.",
    "A tritonserver",
    "One two three four five six seven eight nine ten, and then all of it once more: one two three four five.",
    "Über naïve façades, 東京 and emoji 🙂",
)
# What the pooling layer of sentence-transformers is called for a way of pooling.
_POOLING = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}


def make_qwen3_embedding(tokenizer_dir: Path, folder: Path, *, matryoshka: bool = True) -> Path:
    """The shape of Qwen3-Embedding: the last token's hidden state, normalised."""
    torch.manual_seed(11)
    more = {"matryoshka_dimensions": MATRYOSHKA} if matryoshka else {}
    Qwen3ForCausalLM(Qwen3Config(**SHAPE, **QWEN_IDS, **more)).to(torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_dir / name, folder / name)
    return _as_sentence_transformer(folder, "last", 128, normalize=True)


def make_bert(folder: Path, pooling: str, *, normalize: bool = True) -> Path:
    """The shape of BGE (pooling "cls") or E5 (pooling "mean"), with a WordPiece tokenizer."""
    tokenizer = _word_piece()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(12)
    BertModel(BertConfig(**BERT_SHAPE, vocab_size=len(tokenizer))).to(torch.float32).save_pretrained(folder)
    return _as_sentence_transformer(folder, pooling, 128, normalize=normalize)


def make_cross_encoder(folder: Path) -> Path:
    """The shape of a BERT reranker: one class, whose logit is a pair's score."""
    tokenizer = _word_piece()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(13)
    config = BertConfig(**BERT_SHAPE, vocab_size=len(tokenizer), num_labels=1)
    BertForSequenceClassification(config).to(torch.float32).save_pretrained(folder)
    return folder


def embeddings_of(
    folder: Path,
    texts: Sequence[str | list[int]],
    pooling: str,
    *,
    normalize: bool = True,
    dimensions: int | None = None,
) -> torch.Tensor:
    """FP32 [texts, dimensions], each text by itself."""
    model, tokenizer = (
        AutoModel.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    rows = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"] if isinstance(text, str) else text])
        with torch.no_grad():
            states = model(input_ids=ids).last_hidden_state[0]
        row = _POOLS[pooling](states)[:dimensions]
        rows.append(torch.nn.functional.normalize(row, dim=0) if normalize else row)
    return torch.stack(rows)


def scores_of(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The cross-encoder's score of each pair: the sigmoid of its logit."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = [model(**tokenizer(*pair, return_tensors="pt")).logits[0, 0] for pair in pairs]
    return torch.stack(logits).sigmoid().tolist()


_POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda states: states[0],
    "last": lambda states: states[-1],
    "mean": lambda states: states.mean(dim=0),
}


def _word_piece() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of a few hundred pieces, as BERT's: lower case, [CLS] and [SEP] around a text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(TEXTS * 5, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=128, model_input_names=inputs, **names)


def _as_sentence_transformer(folder: Path, pooling: str, size: int, *, normalize: bool) -> Path:
    """Add the files in which sentence-transformers writes what follows the transformer."""
    layers = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(layers)
    ]
    config = {"word_embedding_dimension": size} | {key: name == pooling for name, key in _POOLING.items()}
    (folder / "1_Pooling").mkdir()
    for file, content in {"modules.json": modules, "1_Pooling/config.json": config}.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return folder
