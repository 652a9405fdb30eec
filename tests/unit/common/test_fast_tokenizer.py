# SPDX-License-Identifier: Apache-2.0
import logging
import random
import threading
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from common.fast_tokenizer import BACKENDS, LONG_TEXT, FastTokenizer, LazyFastTokenizer, faster
from common.tokenizer import ChatTokenizer

BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
CORPUS = ["The quick brown fox doesn't jump, 123 times over 45 lazy dogs. Ünïcödé: 你好, Привет!"] * 3
# The pattern of GPT-4o and gpt-oss, whose ids of contractions with a long s differ in fastokens.
CONTRACTIONS = r"[^\r\n\p{L}\p{N}]?\p{L}+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+"
PIECES = (
    *("I'm", " don't", "  ", "\n", "\r\n", "\t", "x1234567", " the", "ing", "<|", "|>", "<|im_start|>", "<|im_end|>"),
    *(
        "<think>",
        "</think>",
        "<start_of_turn>",
        "<bos>",
        "你好",
        " мир",
        "مرحبا",
        "ａ",
        "e\u0301",
        "👩\u200d👧",
        "\u3000",
    ),
    *(
        "\x00",
        "\x1b",
        "\ufeff",
        "\u2028",
        "\U0010ffff",
        "aaaaaaaa",
        "========",
        "I'\u017f",
        "\u212a",
        "▁",
        "<0x0A>",
        "½",
    ),
)


def byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer = BYTES) -> Tokenizer:
    """A tokenizer of all bytes with some merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def with_tokens() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<s>", "<|end|>", "<|end|>x"])
    tokenizer.add_tokens([AddedToken("xyz", lstrip=True), AddedToken("word", rstrip=True), AddedToken("Ün")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $0", special_tokens=[("<s>", 400)])
    return tokenizer


def with_pattern(pattern: str, behavior: str = "isolated") -> Tokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior, invert=behavior == "removed")
    return byte_level(pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)]))


def random_texts(tokenizer: Tokenizer, count: int) -> list[str]:
    chooser = random.Random(5)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]

    def piece() -> str:
        kind = chooser.randrange(4)
        if kind == 0 and added:
            token = chooser.choice(added)
            return token[: chooser.randrange(len(token) + 1)] if chooser.random() < 0.3 else token
        if kind == 1:
            code = chooser.randrange(0x110000 - 0x800)
            return chr(code if code < 0xD800 else code + 0x800)
        return chooser.choice(PIECES)

    return ["".join(piece() for _ in range(chooser.randrange(1, 12))) for _ in range(count)]


@pytest.fixture(scope="module", params=["qwen3", "gemma3", "tokens", "contractions"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "tokens":
        return with_tokens()
    if request.param == "contractions":
        return with_pattern(CONTRACTIONS)
    folder: Path = request.getfixturevalue(f"{request.param}_tokenizer_dir")
    return ChatTokenizer.load(folder).backend


def test_ids_are_those_of_hugging_face(tokenizer: Tokenizer) -> None:
    fast = FastTokenizer(tokenizer)
    for text in random_texts(tokenizer, 1000):
        for special in (False, True):
            ids = tokenizer.encode_batch_fast([text], add_special_tokens=special)[0].ids
            assert fast.encode(text, special) in (ids, None), repr(text)


def test_texts_on_which_patterns_differ_are_left_to_hugging_face() -> None:
    fast = FastTokenizer(with_pattern(CONTRACTIONS))
    assert fast.encode("I's", False) is not None
    assert fast.encode("I'\u017f", False) is None
    assert fast.encode("300 \u212a", False) is None


def test_a_tokenizer_that_fastokens_cannot_read_is_refused() -> None:
    tokenizer = byte_level()
    tokenizer.normalizer = normalizers.NFKC()
    with pytest.raises(ValueError, match=r"fastokens does not support this tokenizer: .*NFKC"):
        FastTokenizer(tokenizer)


def test_a_tokenizer_with_other_ids_is_refused() -> None:
    with pytest.raises(ValueError, match="fastokens and Hugging Face's tokenizer have different ids for '"):
        FastTokenizer(with_pattern(r"\w+", "removed"))


def test_tokens_that_are_whole_words_are_refused() -> None:
    tokenizer = with_tokens()
    tokenizer.add_tokens([AddedToken("whole", single_word=True)])
    with pytest.raises(ValueError, match="found only as whole words"):
        FastTokenizer(tokenizer)


def test_without_the_package_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fastokens", None)
    with pytest.raises(ValueError, match="the package fastokens is not installed"):
        faster(byte_level(), "fastokens")


def test_choices() -> None:
    backend = byte_level()
    assert faster(backend, "huggingface") is None
    assert isinstance(faster(backend, "fastokens"), FastTokenizer)
    assert isinstance(faster(backend, "auto"), LazyFastTokenizer)
    with pytest.raises(ValueError, match=f"must be one of {', '.join(BACKENDS)}, not 'rust'"):
        faster(backend, "rust")


def join_thread() -> None:
    for thread in threading.enumerate():
        if thread.name == "fastokens":
            thread.join(60)


def test_auto_begins_with_the_first_long_text() -> None:
    backend = byte_level()
    lazy = LazyFastTokenizer(backend)
    assert lazy.encode("short", False) is None
    join_thread()
    assert lazy.encode("short", False) is None
    assert lazy.encode("x" * LONG_TEXT, False) is None
    join_thread()
    assert lazy.encode("short", False) == backend.encode("short").ids


def test_auto_stays_with_hugging_face_where_ids_differ(caplog: pytest.LogCaptureFixture) -> None:
    lazy = LazyFastTokenizer(with_pattern(r"\w+", "removed"))
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert lazy.encode("x" * LONG_TEXT, False) is None
            join_thread()
    assert [record.message for record in caplog.records if "different ids" in record.message] == [
        message for message in caplog.messages if message.startswith("long prompts are tokenized by Hugging Face's")
    ]
    assert len(caplog.records) == 1


def test_a_chat_tokenizer_asks_it_first(qwen3_tokenizer_dir: Path) -> None:
    slow, fast = (ChatTokenizer.load(qwen3_tokenizer_dir, choice=choice) for choice in ("huggingface", "fastokens"))
    for text in ("", "hi", "<|im_start|>user\n你好<|im_end|>\n", "I'\u017f"):
        assert fast.encode(text, True) == slow.encode(text, True)
    with pytest.raises(ValueError, match="tokenizer_backend must be one of"):
        ChatTokenizer.load(qwen3_tokenizer_dir, choice="rust")
