# SPDX-License-Identifier: Apache-2.0
"""What the adapters of vLLM and TensorRT-LLM do alike with new ids: both give rows of id -> (logprob, rank)."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.finish_reason import FinishReason
from engines.engine import Tokens


def add_logprobs(tokens: Tokens, rows: Sequence[Mapping[int, Any]], count: int) -> None:
    """rows: one per id, each with the id itself among them. count: alternatives that were asked for."""
    tokens.logprobs = [row[token].logprob for row, token in zip(rows, tokens.ids, strict=True)]
    if count:
        ranked = [sorted(row.items(), key=lambda item: item[1].rank)[:count] for row in rows]
        tokens.top_ids = [[token for token, _ in row] for row in ranked]
        tokens.top_logprobs = [[logprob.logprob for _, logprob in row] for row in ranked]


def cut(tokens: Tokens, count: int) -> Tokens:
    """The first `count` ids as the last response of a generation that stop words ended."""
    tokens.ids, tokens.finish = tokens.ids[:count], FinishReason.STOP_WORDS
    tokens.logprobs = tokens.logprobs and tokens.logprobs[:count]
    tokens.top_ids = tokens.top_ids and tokens.top_ids[:count]
    tokens.top_logprobs = tokens.top_logprobs and tokens.top_logprobs[:count]
    return tokens
