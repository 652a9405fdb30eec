# SPDX-License-Identifier: Apache-2.0
"""Log-probabilities in OpenAI's format: one entry per token, with the token's bytes."""

import json
import math
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
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

    def json_fields(self, token_id: int) -> bytes:
        """The fields `token`, `bytes` and `id` of a JSON object."""
        text, raw = self.token(token_id)
        return orjson.dumps({"token": text, "bytes": raw, "id": token_id})[1:-1]

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


def prompt_logprobs_json(
    table: TokenTable, ids: NDArray[np.int32], logprobs: NDArray[np.float32], ranks: NDArray[np.int32] | None = None
) -> bytes:
    """The entries of a prompt's tokens as a JSON array, each entry and its alternatives with their `id` and `rank`.

    A prompt may have a hundred thousand of them, hence no object for each.

    ids, logprobs: a row for each token, the token itself in column 0 and its alternatives after it. The first token has
    neither a log-probability nor alternatives, as no token precedes it. ranks: of the tokens; null without them.

    Raises ValueError if there are not as many log-probabilities or ranks as ids.
    """
    if logprobs.shape != ids.shape or (ranks is not None and len(ranks) != len(ids)):
        raise ValueError(f"prompt ids of shape {ids.shape} with log-probabilities of shape {logprobs.shape}")
    fields = {token_id: table.json_fields(token_id) for token_id in np.unique(ids).tolist()}
    values = _numbers(logprobs)
    own_ranks = [b"null"] * len(ids) if ranks is None else [b"%d" % rank for rank in ranks.tolist()]
    entries = [b'{%b,"logprob":null,"rank":null,"top_logprobs":[]}' % fields[row[0]] for row in ids[:1].tolist()]
    for (own, *others), (value, *theirs), rank in zip(ids[1:].tolist(), values[1:], own_ranks[1:], strict=True):
        top = b",".join(
            [
                b'{%b,"logprob":%b,"rank":%d}' % (fields[other], its, place)
                for place, (other, its) in enumerate(zip(others, theirs, strict=True), 1)
            ]
        )
        entries.append(b'{%b,"logprob":%b,"rank":%b,"top_logprobs":[%b]}' % (fields[own], value, rank, top))
    return b"[" + b",".join(entries) + b"]"


def _numbers(logprobs: NDArray[np.float32]) -> list[list[bytes]]:
    """The rows of log-probabilities as JSON; -inf and NaN become -9999.0."""
    clipped = np.where(np.isfinite(logprobs) & (logprobs > LOWEST), logprobs, LOWEST).astype(np.float64)
    rows = orjson.dumps(clipped, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
    return [row.split(b",") for row in rows]
