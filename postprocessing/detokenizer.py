# SPDX-License-Identifier: Apache-2.0
"""Decodes generated ids to text, one id at a time, without losing spaces or splitting characters."""

from functools import lru_cache

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

REPLACEMENT = "\ufffd"

# A character has at most four bytes, hence at most four ids. Twice as many held ids must be broken bytes, and
# DecodeStream would decode all of them again at every step.
_MAX_HELD = 8
_MAX_UNFINISHED = 3


@lru_cache(maxsize=64)
def special_ids(tokenizer: Tokenizer, markup: tuple[str, ...] = ()) -> frozenset[int]:
    """The ids that `skip_special_tokens` omits: special tokens that are in none of the texts `markup`."""
    return frozenset(
        token_id
        for token_id, token in tokenizer.get_added_tokens_decoder().items()
        if token.special and not any(token.content in text for text in markup)
    )


@lru_cache(maxsize=8)
def primer(tokenizer: Tokenizer) -> tuple[tuple[int, ...], str]:
    """Neutral ids to decode before others, and their text.

    Sentencepiece decoders drop the space of the first token; with a primer before it, no token is the first.
    """
    ids = tuple(tokenizer.encode("a", add_special_tokens=False).ids)
    return ids, tokenizer.decode(list(ids), skip_special_tokens=False)


def known(tokenizer: Tokenizer, token_id: int) -> bool:
    """Whether the tokenizer has a token with this id; models' vocabularies are padded beyond the tokenizer's."""
    return 0 <= token_id < 2**32 and tokenizer.id_to_token(token_id) is not None


def decode_after_primer(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of `ids` after other text; incomplete characters become U+FFFD."""
    before, text = primer(tokenizer)
    return tokenizer.decode([*before, *ids], skip_special_tokens=False).removeprefix(text)


class Detokenizer:
    """The incremental decoder of one answer.

    Ids without a token (negative or beyond the vocabulary) are skipped.
    markup: texts whose special tokens are kept, since a parser reads them.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True, markup: tuple[str, ...] = ()) -> None:
        self._tokenizer = tokenizer
        self._skipped = special_ids(tokenizer, markup) if skip_special_tokens else frozenset()
        self._held: list[int] = []  # ids whose text has not been returned
        self._restart()

    def _restart(self) -> None:
        self._stream = DecodeStream(list(primer(self._tokenizer)[0]), skip_special_tokens=False)

    def feed(self, token_id: int) -> str:
        """The text that this id completes: empty while a character is unfinished."""
        # Special ids are not given to the stream, which would hold them and decode them again at every step.
        if token_id in self._skipped or not known(self._tokenizer, token_id):
            return ""
        self._held.append(token_id)
        text = self._step(token_id)
        if text:
            self._held.clear()
        elif len(self._held) >= _MAX_HELD:
            text = self._release()
        return text

    def _step(self, token_id: int) -> str:
        try:
            return self._stream.step(self._tokenizer, token_id) or ""
        except Exception:
            # The binding raises bare Exception if the decoded text no longer begins with the text returned so far, such
            # as for broken bytes after a byte-fallback character. The stream would keep raising, so it is replaced.
            return self._replay()

    def _replay(self) -> str:
        """Decode the held ids in a new stream."""
        self._restart()
        return self._stream.step(self._tokenizer, list(self._held)) or ""

    def _release(self) -> str:
        """Return broken bytes that were held too long, and keep the ids of a character that may still be completed."""
        text = decode_after_primer(self._tokenizer, self._held)
        for kept in range(_MAX_UNFINISHED, len(self._held)):
            tail = self._held[-kept:]
            head = decode_after_primer(self._tokenizer, self._held[:-kept])
            # Do not cut inside the bytes of one U+FFFD, which would become two.
            if head + decode_after_primer(self._tokenizer, tail) == text:
                self._held = tail
                return head + self._replay()
        self._held = []
        self._restart()
        return text

    def flush(self) -> str:
        """The text still held at the end; an incomplete character becomes U+FFFD."""
        held, self._held = self._held, []
        self._restart()
        return decode_after_primer(self._tokenizer, held) if held else ""
