# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities in OpenAI's format: one entry per token, with the token's bytes."""

import json
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from postprocessing.detokenizer import REPLACEMENT, decode_after_primer, known

Entry = dict[str, Any]

# OpenAI's value for a token too unlikely to have a log-probability; JSON has no -inf.
LOWEST = -9999.0

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's byte-level alphabet: printable bytes map to themselves, the others to U+0100 and up, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_ALPHABET = _byte_alphabet()


class TokenTable:
    """The text and bytes of single tokens, cached per id."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder else {}
        kinds = {part["type"] for part in decoder.get("decoders", [decoder]) if "type" in part}
        self._byte_level = "ByteLevel" in kinds
        self._byte_fallback = "ByteFallback" in kinds
        self._tokens: dict[int, tuple[str, tuple[int, ...]]] = {}

    def token(self, token_id: int) -> tuple[str, tuple[int, ...]]:
        """The token's text and UTF-8 bytes; both empty for an id without a token.

        The text of an incomplete character is written like `\\xe4`, as OpenAI does.
        """
        token = self._tokens.get(token_id)
        if token is None:
            raw = self._bytes(token_id)
            token = self._tokens[token_id] = (raw.decode("utf-8", errors="backslashreplace"), tuple(raw))
        return token

    def _bytes(self, token_id: int) -> bytes:
        if not known(self._tokenizer, token_id):
            return b""
        text = decode_after_primer(self._tokenizer, [token_id])
        piece = self._tokenizer.id_to_token(token_id) or ""
        if REPLACEMENT in text:
            if self._byte_level and all(char in _ALPHABET for char in piece):
                return bytes(_ALPHABET[char] for char in piece)
            if self._byte_fallback and (byte := _BYTE_TOKEN.fullmatch(piece)):
                return bytes([int(byte[1], 16)])
        return text.encode()


@lru_cache(maxsize=8)
def token_table(tokenizer: Tokenizer) -> TokenTable:
    """The table of a tokenizer, shared by its streams."""
    return TokenTable(tokenizer)


def _clip(logprob: float) -> float:
    return logprob if math.isfinite(logprob) and logprob > LOWEST else LOWEST


def _token_entry(table: TokenTable, token_id: int, logprob: float | None) -> Entry:
    text, raw = table.token(token_id)
    return {"token": text, "logprob": None if logprob is None else _clip(float(logprob)), "bytes": list(raw)}


def logprob_entry(
    table: TokenTable,
    token_id: int,
    logprob: float | None,
    top_ids: Sequence[int] = (),
    top_logprobs: Sequence[float] = (),
) -> Entry:
    """One entry of `logprobs.content`; -inf and NaN become -9999.0, and None stays null."""
    alternatives = [_token_entry(table, i, value) for i, value in zip(top_ids, top_logprobs, strict=False)]
    return {**_token_entry(table, token_id, logprob), "top_logprobs": alternatives}


def prompt_logprob_entries(
    table: TokenTable,
    ids: Sequence[int],
    logprobs: Sequence[float],
    top_ids: Sequence[Sequence[int]] = (),
    top_logprobs: Sequence[Sequence[float]] = (),
    ranks: Sequence[int] = (),
) -> list[Entry]:
    """The entries of a prompt's ids, each with its `id` and `rank`; the first logprob is null, as no token precedes it.

    logprobs, top_ids, top_logprobs, ranks: values for ids[1:], in order. Without ranks they are null.

    Raises ValueError if `logprobs` does not have one value for each id except the first.
    """
    if len(logprobs) != max(len(ids) - 1, 0):
        raise ValueError(f"{len(ids)} prompt ids need {max(len(ids) - 1, 0)} logprobs, got {len(logprobs)}")
    entries = [logprob_entry(table, i, None) | {"id": i, "rank": None} for i in ids[:1]]
    for n, logprob in enumerate(logprobs):
        alternatives = (top_ids[n], top_logprobs[n]) if n < len(top_ids) else ((), ())
        entry = logprob_entry(table, ids[n + 1], logprob, *alternatives)
        entry |= {"id": ids[n + 1], "rank": ranks[n] if ranks else None}
        for rank, (one, other) in enumerate(zip(entry["top_logprobs"], alternatives[0], strict=True), 1):
            one |= {"id": other, "rank": rank}
        entries.append(entry)
    return entries
