# SPDX-License-Identifier: Apache-2.0
"""A second tokenizer, fastokens, for the same ids in a tenth of the time."""

import logging
import os
import random
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # The launcher knows the choices, and does without the library.
    from tokenizers import Tokenizer

HUGGINGFACE, FASTOKENS, AUTO = BACKENDS = ("huggingface", "fastokens", "auto")

# With fewer characters a text costs Hugging Face's tokenizer less than a millisecond.
LONG_TEXT = 4096
# The two characters beyond ASCII that a pattern without regard to case takes for ASCII letters, `s` and `k`. fastokens
# does not, so "I'ſ" has other ids in the vocabularies of GPT-4o and gpt-oss.
_ASCII_ONLY_BY_CASE = ("\u017f", "\u212a")
# Of the texts by which tokenizers are compared: how many are made of the vocabulary, of how many tokens each, and the
# most added tokens in them.
_SAMPLES, _SAMPLE_TOKENS, _MOST_ADDED = 1000, 12, 1000
# Of the ids of a prompt's parts between added tokens: a conversation's earlier messages come with every turn again.
_CACHE_BYTES = 16 * 2**20
_PROBES = (
    *("", " ", "  ", "   a", "a   ", "\n", "\n\n", " \n ", "\r\n", "\t\tx", "a\u00a0b", "a\u3000b", "\u2028", "\u200b"),
    *(
        "Don't, I'M we'll THEY'RE it's d'",
        "x1 12 123 1234 1234567890 3.14 ½ ² ⅷ",
        "foo_bar(baz)[0] != `qux`; // # *",
        "a" * 300,
    ),
    *("\x00\x01\x1b\x7f", "\ufeffx", "<|", "|>", "<|im_", "</", "[INST", "<0x0A>", "▁▁a ▁", "=" * 200, "  \n" * 50),
    *("你好，你是谁？", "Привет, мир", "مرحبا بالعالم", "नमस्ते", "สวัสดี", "안녕", "こんにちは", "Ａｂｃ １２３", "שלום"),
    *(
        "e\u0301 é a\u0308\u0301 \u1100\u1161\u11a8 각 ﬁ ㎏",
        "👩‍👩‍👧 🏳️‍🌈 🇩🇪 e\u20e3",
        "\U00020000\U000e0001\uffff\U0010ffff",
    ),
)

log = logging.getLogger(__name__)


class FastTokenizer:
    """fastokens' copy of a tokenizer, as far as it is proven to give the same ids. Safe to use from several threads."""

    def __init__(self, backend: "Tokenizer") -> None:
        """Copy a tokenizer, which takes seconds with a large vocabulary.

        Raises ValueError if fastokens is not installed, cannot read the tokenizer, or has other ids for some texts.
        """
        if any(token.single_word for token in backend.get_added_tokens_decoder().values()):
            # Where other added tokens are beside them, fastokens 0.3 judges otherwise what is a word.
            raise ValueError("the tokenizer has added tokens that are found only as whole words")
        # More threads wait for work by spinning, and keep a cache each.
        os.environ.setdefault("FASTOKENS_BPE_THREADS", "1")
        try:
            import fastokens
        except ImportError:
            raise ValueError("the package fastokens is not installed") from None
        try:
            self._fast: Any = fastokens.Tokenizer.from_json_str(backend.to_str())
            self._fast.enable_segment_cache(_CACHE_BYTES)
            different = next((text for text in _probes(backend) if not self._agrees(backend, text)), None)
        except Exception as error:
            raise ValueError(f"fastokens does not support this tokenizer: {error}") from error
        if different is not None:
            raise ValueError(f"fastokens and Hugging Face's tokenizer have different ids for {different!r}")

    def encode(self, text: str, add_special_tokens: bool) -> list[int] | None:
        """Ids of `text`; None if only Hugging Face's tokenizer is sure to have them."""
        if any(character in text for character in _ASCII_ONLY_BY_CASE):
            return None
        try:
            return self._ids(text, add_special_tokens)
        except Exception as error:
            # Such as a limit of its regular expressions, which Hugging Face's do not have.
            log.debug("fastokens failed on a text: %s", error)
            return None

    def _ids(self, text: str, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._fast.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def _agrees(self, backend: "Tokenizer", text: str) -> bool:
        return all(
            backend.encode_batch_fast([text], add_special_tokens=special)[0].ids == self._ids(text, special)
            for special in (False, True)
        )


class LazyFastTokenizer:
    """A FastTokenizer that is made after the first long text, in a thread of its own.

    A server of short prompts does without its memory and its seconds.
    """

    def __init__(self, backend: "Tokenizer") -> None:
        self._backend = backend
        self._fast: FastTokenizer | None = None
        self._begun = threading.Lock()

    def encode(self, text: str, add_special_tokens: bool) -> list[int] | None:
        """Ids of `text`; None if Hugging Face's tokenizer is to be asked."""
        if self._fast is not None:
            return self._fast.encode(text, add_special_tokens)
        if len(text) >= LONG_TEXT and self._begun.acquire(blocking=False):
            threading.Thread(target=self._make, name="fastokens", daemon=True).start()
        return None

    def _make(self) -> None:
        try:
            self._fast = FastTokenizer(self._backend)
        except ValueError as error:
            log.info("long prompts are tokenized by Hugging Face's tokenizer: %s", error)


def faster(backend: "Tokenizer", choice: str) -> FastTokenizer | LazyFastTokenizer | None:
    """The tokenizer to ask before `backend`. choice: one of BACKENDS; raises ValueError if it cannot be had."""
    if choice not in BACKENDS:
        raise ValueError(f"tokenizer_backend must be one of {', '.join(BACKENDS)}, not '{choice}'")
    if choice == AUTO:
        return LazyFastTokenizer(backend)
    return FastTokenizer(backend) if choice == FASTOKENS else None


def _probes(backend: "Tokenizer") -> Iterator[str]:
    """Texts by which a copy of a tokenizer is compared: usual pitfalls, its added tokens, and all of its vocabulary."""
    yield from _PROBES
    chooser, size = random.Random(0), backend.get_vocab_size()  # nosec B311 # no secret is drawn
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    for token in added[:_MOST_ADDED]:
        yield f"a{token}b {token} {token}{token[:-1]}\n{token}"
    pieces = [*added, *(token[: len(token) // 2] for token in added), *(token[1:] for token in added), " ", "\n", "x"]
    for _ in range(_SAMPLES):
        yield "".join(chooser.choices(pieces, k=_SAMPLE_TOKENS))
    for _ in range(_SAMPLES):
        yield backend.decode([chooser.randrange(size) for _ in range(_SAMPLE_TOKENS)], skip_special_tokens=False)
