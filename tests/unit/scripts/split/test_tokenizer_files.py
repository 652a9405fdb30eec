# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a split: loads without the checkpoint's own code and gives the checkpoint's ids."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import Tokenizer

from common.tokenizer import ChatTokenizer
from postprocessing.detokenizer import Detokenizer
from scripts.split.errors import SplitError
from scripts.split.tokenizer_files import write_tokenizer
from tests.support.vlm_checkpoints import make_tokenizer

NEEDED = ("<img>", "</img>", "<IMG_CONTEXT>")
# Ordinary text, other than the converter's own samples.
TEXTS = (
    "Hello, world!",
    " leading and trailing ",
    "a  b   c\n\n\td",
    "What's in the picture? I can't tell: 12345 67.",
    "早上好，世界。Привет! مرحبا",
    "emoji 😀🇩🇪 and \u200bzero width",
    "<|not_a_token|> <s",
    "the the thethe",
)
CHAT = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nhello there<|im_end|>\n"
INTERNLM2_ADDED = {"<|im_end|>": 3, "<|im_start|>": 4, "<img>": 300, "</img>": 301, "<IMG_CONTEXT>": 302}


def token(content: str) -> dict[str, Any]:
    return {
        "content": content,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


@pytest.fixture(scope="module", params=[True, False], ids=["dummy prefix", "no prefix"])
def internlm2(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as InternVL2.5-2B's: a sentencepiece model of 300 pieces with byte fallback, two of them renamed."""
    folder = tmp_path_factory.mktemp("internlm2")
    corpus = ["the quick brown fox jumps over the lazy dog", "the theme of the thesis", "hello there, what is this?"]
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 20),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        user_defined_symbols=["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"],
        add_dummy_prefix=request.param,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=True,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    in_model = {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>")}
    later = {str(key): token(content) for content, key in INTERNLM2_ADDED.items() if key < 302}
    config = {
        "added_tokens_decoder": in_model | later,
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "InternLM2Tokenizer",
        "chat_template": "{{ messages[0].content }}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "added_tokens.json").write_text(
        json.dumps({key: value for key, value in INTERNLM2_ADDED.items() if value >= 300})
    )
    (folder / "tokenization_internlm2.py").write_text("raise RuntimeError('the checkpoint's own code was run')")
    return folder


def written(source: Path, target: Path, model_type: str = "llama") -> ChatTokenizer:
    target.mkdir()
    (target / "config.json").write_text(json.dumps({"model_type": model_type, "transformers_version": "4.37.2"}))
    write_tokenizer(source, target, NEEDED)
    return ChatTokenizer.load(target)


def test_sentencepiece_ids(internlm2: Path, tmp_path: Path) -> None:
    tokenizer = written(internlm2, tmp_path / "out")
    slow = SentencePieceProcessor(model_file=str(internlm2 / "tokenizer.model"))
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == slow.encode(text)
        assert tokenizer.encode(text, add_special_tokens=True) == [1, *slow.encode(text)]
    assert tokenizer.bos_text() == "<s>"


def test_a_real_sentencepiece_model_on_real_text(tmp_path: Path, gemma3: Tokenizer) -> None:
    # Mistral's, which is like Llama's, with 32,000 pieces: the only real one that an installed package has.
    data = Path(importlib.util.find_spec("mistral_common").origin).parent / "data"
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(data / "tokenizer.model.v1", source / "tokenizer.model")
    (source / "added_tokens.json").write_text(json.dumps({item: 32000 + index for index, item in enumerate(NEEDED)}))
    tokenizer = written(source, tmp_path / "out")
    slow = SentencePieceProcessor(model_file=str(source / "tokenizer.model"))
    words = [gemma3.decode([item]) for item in range(300, 250_000, 41)]
    texts = [
        Path(json.__file__).read_text(encoding="utf-8"),
        *(" ".join(words[at : at + 40]) for at in range(0, len(words), 40)),
    ]
    for text in texts:
        assert tokenizer.encode(text, add_special_tokens=False) == slow.encode(text)


def test_texts_between_special_tokens_are_encoded_separately(internlm2: Path, tmp_path: Path) -> None:
    tokenizer = written(internlm2, tmp_path / "out")
    slow = SentencePieceProcessor(model_file=str(internlm2 / "tokenizer.model"))
    ids = [4, *slow.encode("user\n"), 300, 302, 301, *slow.encode("\nhello there"), 3, *slow.encode("\n")]
    assert tokenizer.encode(CHAT, add_special_tokens=False) == ids


def test_decoding_gives_the_text_back(internlm2: Path, tmp_path: Path) -> None:
    tokenizer = written(internlm2, tmp_path / "out")
    slow = SentencePieceProcessor(model_file=str(internlm2 / "tokenizer.model"))
    prefix = " " if slow.encode("x", out_type=str)[0].startswith("▁") else ""
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.backend.decode(ids) == text
        detokenizer = Detokenizer(tokenizer.backend)
        assert "".join([*map(detokenizer.feed, ids), detokenizer.flush()]) == prefix + text


def test_nothing_of_the_checkpoints_own_code_is_left(internlm2: Path, tmp_path: Path) -> None:
    written(internlm2, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (config["tokenizer_class"], config["chat_template"]) == (
        "PreTrainedTokenizerFast",
        "{{ messages[0].content }}",
    )
    assert "auto_map" not in config
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_bos_as_the_config_says(internlm2: Path, tmp_path: Path) -> None:
    source = shutil.copytree(internlm2, tmp_path / "source")
    config = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))
    assert written(source, tmp_path / "out").bos_text() == ""


def test_a_sentencepiece_model_that_is_not_bpe_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c d e f"] * 9),
        model_prefix=str(source / "tokenizer"),
        vocab_size=12,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(SplitError, match="not a BPE model"):
        written(source, tmp_path / "out")


def slow_files(source: Path, folder: Path) -> Path:
    """Take a tokenizer.json apart into vocab.json and merges.txt, with the image tokens in added_tokens.json."""
    folder.mkdir()
    fast = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in fast["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(fast["model"]["vocab"]))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    beside = {str(item["id"]): {**item} for item in fast["added_tokens"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"added_tokens_decoder": beside}))
    last = max(item["id"] for item in fast["added_tokens"])
    (folder / "added_tokens.json").write_text(json.dumps({item: last + 1 + index for index, item in enumerate(NEEDED)}))
    return folder


def test_vocab_and_merges_become_the_published_tokenizer(
    qwen3_tokenizer_dir: Path, qwen3: Tokenizer, tmp_path: Path
) -> None:
    tokenizer = written(slow_files(qwen3_tokenizer_dir, tmp_path / "slow"), tmp_path / "out", "qwen2")
    for text in (*TEXTS, CHAT.replace("<img><IMG_CONTEXT></img>", "")):
        assert tokenizer.encode(text, add_special_tokens=True) == qwen3.encode(text).ids
    ids = tokenizer.encode("a<img><IMG_CONTEXT></img>b", add_special_tokens=False)
    assert ids == [*qwen3.encode("a").ids, 151669, 151671, 151670, *qwen3.encode("b").ids]


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no files": (lambda folder: (folder / "merges.txt").unlink(), "has no tokenizer"),
    "other class": (lambda folder: (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}'), "'GPT2Tokenizer'.*known: Qwen2Tokenizer"),
    "no image tokens": (lambda folder: (folder / "added_tokens.json").unlink(), "lacks <img>, </img>, <IMG_CONTEXT>"),
    "other ids": (lambda folder: (folder / "added_tokens.json").write_text('{"<img>": 700}'), "other ids than the checkpoint says to: <img>"),
    "bad file": (lambda folder: (folder / "added_tokens.json").write_text("{"), "added_tokens.json' is not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize(("harm", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_tokenizers(harm: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    source = slow_files(make_tokenizer(tmp_path / "fast"), tmp_path / "slow")
    harm(source)
    with pytest.raises(SplitError, match=message):
        written(source, tmp_path / "out", "qwen2")
